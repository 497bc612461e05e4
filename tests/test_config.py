"""Every preset is whole, and every wrong option is one line that says what to do, before anything heavy is imported."""

import copy
import json
import math
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image

from impasto.learning import config as room
from impasto.learning.command import main, read_options
from impasto.learning.config import (
    ConfigError,
    Scaling,
    Source,
    TrainConfig,
    option_names,
    preset_names,
    read_preset,
    style_picture,
    to_yaml,
    validate,
)

CONFIGS = Path(__file__).parents[1] / "configs"
PRESETS = sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.glob("*/*.yaml"))
STYLES = [preset.removeprefix("style/") for preset in PRESETS if preset.startswith("style/")]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test writes goes to its own folder, and what the command sets is given back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


def compose_config(*words: str) -> TrainConfig:
    return read_options(words)


def error_of(*words: str, error: type[Exception] = ConfigError) -> str:
    with pytest.raises(error) as caught:
        main(words)
    assert type(caught.value) is error
    assert list(Path().iterdir()) == []
    return str(caught.value)


class TestPresets:
    @pytest.mark.parametrize("preset", [preset for preset in PRESETS if not preset.startswith("style/")])
    def test_each_composes_and_can_be_used(self, preset: str) -> None:
        group, name = preset.split("/")
        needed = {"folder": ["data.root=x"], "coco": ["data.root=x"]}
        validate(compose_config(f"{group}={name}", *needed.get(name, [])))

    def test_the_default_is_the_main_job(self) -> None:
        config = compose_config()
        validate(config)
        assert (config.style.name, config.loss_network.name) == ("weeping_woman", "vgg16_slim")
        assert (config.data.source, config.loss.scaling, config.network.width) == (Source.samples, Scaling.balanced, 16)
        assert config.budget == compose_config("budget=quick").budget
        assert config.run_dir == "runs/weeping_woman"

    @pytest.mark.parametrize("name", sorted(set(STYLES) - {"custom"}))
    def test_each_style_has_its_picture_its_credit_and_its_run_folder(self, name: str) -> None:
        config = compose_config(f"style={name}")
        validate(config)
        assert (config.style.name, config.run_dir) == (name, f"runs/{name}")
        with Image.open(style_picture(config.style.image)) as picture:
            assert min(picture.size) >= config.style.size
        assert config.style.credit != ""
        assert config.style.licence != ""

    def test_at_least_eight_styles_ship(self) -> None:
        assert len(STYLES) >= 9  # custom is one of them
        assert {"weeping_woman", "custom"} <= set(STYLES)

    def test_the_papers_schedule(self) -> None:
        budget = compose_config("budget=paper").budget
        assert (budget.steps, budget.batch_size, budget.image_size, budget.learning_rate) == (40_000, 4, 256, 1e-3)
        assert (budget.warm_up, budget.decay, budget.average, budget.clip) == (0, False, 0, None)

    def test_the_papers_losses(self) -> None:
        loss = compose_config("loss=paper").loss
        assert loss.scaling is Scaling.paper
        assert (loss.content_weight, loss.style_weight) == (1, 5)
        assert loss.tv_weight == pytest.approx(1e-6 * 255**2)
        assert loss.content_layers == {"relu3_3": 1}
        channels = {"relu1_2": 64, "relu2_2": 128, "relu3_3": 256, "relu4_3": 512}
        assert loss.style_layers == {name: count**-2 for name, count in channels.items()}

    def test_the_losses_of_gatys(self) -> None:
        loss = compose_config("loss=gatys").loss
        assert loss.scaling is Scaling.gatys
        assert loss.content_weight / loss.style_weight == pytest.approx(1e-3)
        assert (loss.tv_weight, loss.content_layers) == (0, {"conv4_2": 1})
        assert loss.style_layers == {f"conv{block}_1": 1 / 5 for block in range(1, 6)}

    def test_a_preset_alone_is_what_hydra_composes(self) -> None:
        assert preset_names("loss") == ["balanced", "gatys", "paper"]
        for name in preset_names("loss"):
            loss = compose_config(f"loss={name}").loss
            values = {**vars(loss), "scaling": loss.scaling.value}
            assert values.pop("stability") == 0  # of training alone
            assert read_preset("loss", name) == values

    def test_a_preset_that_is_not_there(self) -> None:
        with pytest.raises(ConfigError) as caught:
            read_preset("loss", "papr")
        expected = "there is no loss 'papr': did you mean 'paper'? it can be balanced, gatys, paper"
        assert str(caught.value) == expected

    @pytest.mark.parametrize("name", ["vgg16", "vgg19"])
    def test_the_full_networks(self, name: str) -> None:
        expected = {"vgg16": "IMAGENET1K_FEATURES", "vgg19": "IMAGENET1K_V1"}[name]
        given = compose_config(f"loss_network={name}").loss_network
        assert (given.name, given.pretrained, given.weights) == (name, expected, None)

    def test_no_config_can_run_code(self) -> None:
        files = list(CONFIGS.rglob("*.yaml"))
        assert len(files) > 20
        assert not any("_target_" in path.read_text() for path in files)

    def test_what_is_written_down_can_be_read_again(self) -> None:
        config = compose_config("style=mosaic", "budget.clip=null", "seed=7")
        again = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.create(to_yaml(config)))
        )
        assert again == config

    def test_a_layer_can_be_added(self) -> None:
        layers = compose_config("+loss.content_layers.relu2_2=0.5").loss.content_layers
        assert layers == {"relu3_3": 1.0, "relu2_2": 0.5}


def numbers(schema: type = TrainConfig, prefix: str = "") -> set[str]:
    """The dotted names of all options that are numbers."""
    found = set()
    for each in fields(schema):
        if isinstance(each.type, type) and is_dataclass(each.type):
            found |= numbers(each.type, f"{prefix}{each.name}.")
        elif each.type in (int, float, int | None, float | None):
            found.add(prefix + each.name)
    return found


def changed(config: TrainConfig, name: str, value: float) -> TrainConfig:
    config = copy.deepcopy(config)
    group, _, leaf = name.rpartition(".")
    setattr(attrgetter(group)(config) if group else config, leaf, value)
    return config


@pytest.fixture(scope="module")
def default() -> TrainConfig:
    return compose_config()


class TestSmallSteps:
    def test_are_a_share_of_all(self) -> None:
        assert compose_config("budget.steps=1000", "budget.small_share=0.75").budget.small_steps == 750

    def test_are_none_where_the_others_are_as_small(self) -> None:
        assert compose_config("budget.image_size=128").budget.small_steps == 0


class TestSchema:
    def test_every_number_has_a_range(self) -> None:
        checked_apart = {"budget.learning_rate", "budget.average", "budget.clip", "budget.micro_batch_size"}
        assert numbers() == room._RANGES.keys() | checked_apart
        assert numbers() <= set(option_names())

    @pytest.mark.parametrize("name", sorted(room._RANGES))
    def test_the_least_value_is_allowed_and_nothing_below(self, default: TrainConfig, name: str) -> None:
        least = int(room._RANGES[name][0])
        validate(changed(default, name, least))
        with pytest.raises(ConfigError, match=f"^expected {name} of {least} or more, got {least - 1}$"):
            validate(changed(default, name, least - 1))

    @pytest.mark.parametrize("name", [name for name, (_, most) in room._RANGES.items() if most < math.inf])
    def test_the_largest_value_is_allowed_and_nothing_above(self, default: TrainConfig, name: str) -> None:
        most = int(room._RANGES[name][1])
        validate(changed(default, name, most))
        with pytest.raises(ConfigError, match=f"^expected {name} of {most:,} or less, got {most + 1}$"):
            validate(changed(default, name, most + 1))


EVERY_STYLE = ", ".join(STYLES)
NAME = (
    "expected style.name of letters, digits, '_', '-', '.' and spaces, got {}: "
    "it becomes the name of the run folder and of the style file"
)
LAYERS = "expected loss.{} with weights of 0 or more, one of them above 0, got {}: a weight of 0 leaves a layer out"
NO_LAYERS = "expected loss.content_layers to be weights by layer, such as {relu2_2:1,relu3_3:0.5}, got something else"
HOME = "expected a path, got '{}', whose '~' names no user: write ~/... or ./~..."
ROOT = "expected data.root=DIR with data={}, got none: name the folder of photos"
WRONG = [
    # Unknown names.
    ("style=weeping_women", f"there is no style=weeping_women: did you mean 'weeping_woman'? it can be {EVERY_STYLE}"),
    ("style=guernica", f"there is no style=guernica: it can be {EVERY_STYLE}"),
    ("budget=quik", "there is no budget=quik: did you mean 'quick'? it can be paper, quick, standard"),
    ("loss=papr", "there is no loss=papr: did you mean 'paper'? it can be balanced, gatys, paper"),
    ("data=folders", "there is no data=folders: did you mean 'folder'? it can be coco, folder, samples"),
    (
        "loss_network=vgg15",
        "there is no loss_network=vgg15: did you mean 'vgg19'? it can be vgg16, vgg16_slim, vgg19",
    ),
    ("styl=x", "there is no option 'styl': did you mean 'style'? see --help"),
    ("budget.stepps=3", "there is no option 'budget.stepps': did you mean 'budget.steps'? see --help"),
    ("budget={stps:3}", "there is no option 'budget.stps': did you mean 'budget.steps'? see --help"),
    ("+typo=3", "there is no option 'typo': see --help"),
    (
        "loss.content_layers={relu2_2:1,relu3_3:0}",
        "'loss.content_layers.relu2_2' has no weight yet: add it with +loss.content_layers.relu2_2=VALUE",
    ),
    (
        "loss.style_layers.relu2_1=1",
        "'loss.style_layers.relu2_1' has no weight yet: add it with +loss.style_layers.relu2_1=VALUE",
    ),
    ("++typo.a=3", "there is no option 'typo': see --help"),
    ("+style.sise=3", "there is no option 'style.sise': did you mean 'style.size'? see --help"),
    ("-x", "there is no -x: see --help"),
    ("--config-dir", "expected a folder of configs after --config-dir, got nothing"),
    ("--config-name=mine", "there is no --config-name: did you mean '--config-dir'? see --help"),
    ("--multirn", "there is no --multirn: did you mean '--multirun'? see --help"),
    # Wrong types.
    ("budget.steps=many", "expected budget.steps to be a whole number, got 'many'"),
    ("budget.steps=1e3", "expected budget.steps to be a whole number, got '1000.0'"),
    ("budget.steps=null", "expected budget.steps to be a value, got null"),
    ("budget.learning_rate=fast", "expected budget.learning_rate to be a number, got 'fast'"),
    ("network.width=true", "expected network.width to be a whole number, got 'True'"),
    ("budget.decay=maybe", "expected budget.decay to be true or false, got 'maybe'"),
    ("budget.decay=3", "expected budget.decay to be true or false, got '3'"),
    ("budget.decay='3'", "expected budget.decay to be true or false, got '3'"),
    ("--multirun resume=0,-1", "expected resume to be true or false, got '-1'"),
    ("device=[cpu]", "expected device to be a word, got '['cpu']'"),
    ("precision=fp16", "expected precision to be one of auto, fp32, bf16, got 'fp16'"),
    ("data.source=web", "expected data.source to be one of samples, folder, coco, got 'web'"),
    ("loss.scaling=raw", "expected loss.scaling to be one of balanced, paper, gatys, got 'raw'"),
    *((f"loss.content_layers={value}", NO_LAYERS) for value in ("3", "relu3_3", "[relu3_3]")),
    ("loss.content_layers={relu3_3:high}", "expected loss.content_layers.relu3_3 to be a number, got 'high'"),
    ("budget=2000", "style, data, loss, loss_network and budget each take a name, got another value: see --help"),
    # Out of range.
    ("budget.steps=0", "expected budget.steps of 1 or more, got 0"),
    ("seed=-1", "expected seed of 0 or more, got -1"),
    ("seed=4294967296", "expected seed of 4,294,967,295 or less, got 4294967296"),
    ("style.strength=nan", "expected style.strength of 0 or more, got nan"),
    ("loss.style_weight=inf", "expected a finite loss.style_weight, got inf"),
    ("network.width=257", "expected network.width of 256 or less, got 257"),
    ("data.generated_share=-0.5", "expected data.generated_share of 0 or more, got -0.5"),
    ("budget.small_share=1.5", "expected budget.small_share of 1 or less, got 1.5"),
    ("budget.learning_rate=0", "expected budget.learning_rate between 0 and 1, got 0.0"),
    ("budget.learning_rate=nan", "expected budget.learning_rate between 0 and 1, got nan"),
    ("budget.average=1", "expected budget.average of 0 or more and below 1, got 1.0"),
    (
        "budget.micro_batch_size=0",
        "expected budget.micro_batch_size of 1 or more, or null for the whole batch, got 0",
    ),
    ("budget.clip=0", "expected budget.clip above 0, or null for none, got 0.0"),
    ("loss.content_layers={relu3_3:0}", LAYERS.format("content_layers", "{'relu3_3': 0.0}")),
    ("loss.content_layers={relu3_3:nan}", LAYERS.format("content_layers", "{'relu3_3': nan}")),
    ("~loss.content_layers.relu3_3", LAYERS.format("content_layers", "{}")),
    (
        "loss.style_layers={relu1_2:-1}",
        LAYERS.format("style_layers", "{'relu1_2': -1.0, 'relu2_2': 1.0, 'relu3_3': 1.0, 'relu4_3': 1.0}"),
    ),
    ("style.image=~nobody-of-that-name/a.jpg", HOME.format("~nobody-of-that-name/a.jpg")),
    ("run_dir=~nobody-of-that-name", HOME.format("~nobody-of-that-name")),
    ("data=folder data.root=~nobody-of-that-name", HOME.format("~nobody-of-that-name")),
    # Names that would be another folder.
    ("style.name=a/b", NAME.format("'a/b'")),
    ("style.name=../a", NAME.format("'../a'")),
    ("style.name=..", NAME.format("'..'")),
    ("style.name=.hidden", NAME.format("'.hidden'")),
    ("style.name=", NAME.format("''")),
    ("style.name=a\nb", NAME.format(r"'a\nb'")),
    # What is missing, or too much.
    ("init=", "expected init=VALUE, got nothing after '=': leave it out for init=scratch"),
    ("device=", "expected device=VALUE, got nothing after '=': leave it out for device=auto"),
    ("style=custom", "expected style.name=VALUE, got none: add it to the command"),
    ("style=custom style.name=x", "expected style.image=VALUE, got none: add it to the command"),
    ("data=folder", ROOT.format("folder")),
    ("data=coco", ROOT.format("coco")),
    ("data=folder data.root=", ROOT.format("folder")),
    (
        "data.root=photos",
        "data=samples takes no data.root, got 'photos': use data=folder to train on a folder",
    ),
    (
        "data=folder data.root=photos data.generated_share=0.9",
        "data=folder takes no data.generated_share, got 0.9: generated pictures belong to data=samples",
    ),
    ("style.name=" + 101 * "ä", "expected style.name of 200 bytes or less, got 202"),
    ("data.cache=kept", "data=samples takes no data.cache, got 'kept': its few photos are kept in memory"),
    (
        "data=folder data.root=photos data.cache=",
        "expected data.cache=DIR, got nothing after '=': name a folder for decoded photos, or null",
    ),
    (
        "style=mosaic,watercolour",
        "Ambiguous value for argument 'style=mosaic,watercolour': {}".format(
            "to train several, one after the other, add --multirun"
        ),
    ),
    # Not an option at all.
    ("budget.steps", "could not read the option 'budget.steps': write NAME=VALUE, without spaces"),
    ("photo.jpg", "could not read the option 'photo.jpg': write NAME=VALUE, without spaces"),
]


class TestErrors:
    @pytest.mark.parametrize(("words", "message"), WRONG, ids=[words for words, _ in WRONG])
    def test_one_line_that_says_what_to_do(self, words: str, message: str) -> None:
        assert error_of(*words.split(" ")) == message

    @pytest.mark.parametrize("word", ["1", "'1'", "true", "True", "yes", "on"])
    def test_a_switch_may_be_set_in_many_words(self, word: str) -> None:
        assert read_options(["style=mosaic", f"++budget.decay={word}"]).budget.decay is True

    def test_a_sweep_may_be_over_both_values_of_a_switch(self) -> None:
        with pytest.raises(ValueError, match=r"^2 styles were not trained: "):  # for want of steps, both of them
            main(["--multirun", "style=mosaic", "budget.decay=true, 0", "budget.steps=0"])

    def test_nothing_heavy_is_imported_before_the_options_are_checked(self) -> None:
        code = (
            "import sys; from impasto.cli import main; status = main(['train', 'budget.steps=0']); "
            "print(status, *sorted({'torch', 'torchvision', 'pytorch_lightning', 'skimage'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "2\n")
        assert done.stderr == "error: expected budget.steps of 1 or more, got 0\n"

    def test_flags_may_stand_anywhere(self) -> None:
        message = "^expected budget.steps of 1 or more, got 0$"
        for words in (
            ["style=mosaic", "--multirun", "budget.steps=0"],
            ["~style", "style.name=x", "style.image=x", "-m", "budget.steps=0"],
        ):
            with pytest.raises(ConfigError, match=message):
                main(words)

    def test_in_a_sweep(self) -> None:
        with pytest.raises(
            ConfigError, match=f"^there is no style=mosiac: did you mean 'mosaic'. it can be {STYLES[0]}"
        ):
            main(["--multirun", "style=mosaic,mosiac"])


def picture_not_found(path: str) -> str:
    return f"expected an image file, found nothing at {path!r}: check the path"


class TestPaths:
    """A picture that is not there is the first thing a training says, and names the path it was told."""

    @pytest.mark.parametrize(
        "path",
        [
            "plain.jpg",
            "/a b/[c] (1), {d}=e;f.jpg",
            'it\'s "quoted".jpg',
            r"back\slash.jpg",
            r"ends in a backslash\\",
            "ümläut & $HOME ☃.jpg",
            "a,b",
            "a: b # c",
        ],
    )
    def test_they_are_taken_to_the_letter(self, path: str) -> None:
        error = error_of(f"style.image={path}", error=FileNotFoundError)
        assert repr(path) in error

    def test_quotes_of_hydra_may_stand_around_them(self) -> None:
        assert repr("a b.jpg") in error_of("style.image='a b.jpg'", error=FileNotFoundError)

    def test_a_home_folder_is_found(self) -> None:
        assert style_picture("~/a.jpg") == Path.home() / "a.jpg"

    def test_a_builtin_picture_is_found(self) -> None:
        assert style_picture("builtin:mosaic.jpg").is_file()

    def test_the_run_folder_follows_the_name(self) -> None:
        assert compose_config("style=custom", "style.name='my style'", "style.image=x").run_dir == "runs/my style"


class TestOwnStyles:
    """A folder with styles of one's own, named with --config-dir."""

    @pytest.fixture
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("styles")
        (folder / "style").mkdir()
        return folder

    def write(self, folder: Path, **options: Any) -> Sequence[str]:
        (folder / "style" / "mine.yaml").write_text(json.dumps(options))  # which is YAML too
        return "--config-dir", str(folder), "style=mine"

    def test_a_style_is_found(self, folder: Path) -> None:
        words = self.write(folder, name="mine", image="/nowhere/mine.jpg", size=99)
        assert "'/nowhere/mine.jpg'" in error_of(*words, error=FileNotFoundError)

    def test_it_is_proposed_for_a_misspelt_name(self, folder: Path) -> None:
        self.write(folder, name="mine", image="mine.jpg")
        assert error_of("--config-dir", str(folder), "style=mime").startswith(
            "there is no style=mime: did you mean 'mine'? it can be custom, "
        )

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        assert error_of("--config-dir=none") == f"Additional config directory {str(tmp_path / 'none')!r} not found"

    def test_it_cannot_run_code(self, folder: Path) -> None:
        words = self.write(folder, name="mine", image="mine.jpg", _target_="os.abort")
        assert error_of(*words) == "there is no option 'style._target_': did you mean 'style.image'? see --help"

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            (b"name: [1", "while parsing a flow sequence in "),
            (b"name: !!python/object/apply:os.abort []", "could not determine a constructor for the tag "),
            (b"name: \xff", "'utf-8' codec can't decode byte 0xff in position 6: invalid start byte"),
            (b"name: " + b"[" * 5000, "maximum recursion depth exceeded"),
        ],
    )
    def test_files_that_are_no_plain_yaml(self, folder: Path, content: bytes, found: str) -> None:
        (folder / "style" / "mine.yaml").write_bytes(content)
        said = error_of("--config-dir", str(folder), "style=mine")
        message = "expected YAML of plain values in the files of --config-dir, got something else: "
        assert said.startswith(message + found)
        assert "\n" not in said

    @pytest.mark.parametrize("name", ["mine", "deep/down/mine"])
    @pytest.mark.parametrize(
        "content",
        [
            "a: &a [x]\nb: *a\n",  # could fill the memory, as a long file could
            "name: x" + " " * 100_000,
            # what Hydra's own options name is run
            "# @package _global_\nhydra: {callbacks: {x: {_target_: os.abort}}}",
            "\n #@package hydra.callbacks.x\n_target_: os.abort",
            "defaults: [/other@_global_.hydra.callbacks.x: mine]",
            '"def\\x61ults": [/other@_global_.hydra.callbacks.x: mine]',
            "<<: {defaults: [/other@_global_.hydra.callbacks.x: mine]}",
        ],
    )
    def test_a_file_of_more_than_plain_values(self, folder: Path, content: str, name: str) -> None:
        path = folder / "style" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(content)
        for words in (("--config-dir", str(folder)), (f"--config-dir={folder}",), ("-cd", folder), (f"-cd={folder}",)):
            assert error_of(*map(str, words), f"style={name}") == (
                "expected a config of a few plain values, without aliases (*name), defaults or a package, "
                f"got {str(path)!r}"
            )

    def test_a_linked_folder_is_looked_into_as_well(
        self, folder: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        (elsewhere / "loop").symlink_to(folder)
        (elsewhere / "mine.yaml").write_text("# @package _global_\nseed: 1")
        (folder / "style").rmdir()
        (folder / "style").symlink_to(elsewhere)
        said = error_of("--config-dir", str(folder), "style=mine")
        assert said.endswith(f"got {str(folder / 'style' / 'mine.yaml')!r}")

    def test_a_misspelt_option_in_it(self, folder: Path) -> None:
        words = self.write(folder, name="mine", image="mine.jpg", strenght=2)
        assert error_of(*words) == "there is no option 'style.strenght': did you mean 'style.strength'? see --help"

    def test_a_wrong_type_in_it(self, folder: Path) -> None:
        words = self.write(folder, name="mine", image="mine.jpg", size="big")
        assert error_of(*words) == "expected style.size to be a whole number, got 'big'"


class TestHelp:
    @pytest.fixture
    def text(self, capsys: pytest.CaptureFixture[str]) -> str:
        with pytest.raises(SystemExit, match=r"^0$"):
            main(["--help"])
        return capsys.readouterr().out

    def test_it_names_every_option(self, text: str) -> None:
        leaves = {name.rpartition(".")[2] for name in option_names()}
        assert len(leaves) > 30
        assert [name for name in sorted(leaves) if f"{name}:" not in text] == []

    def test_it_names_every_preset(self, text: str) -> None:
        groups, names = zip(*(preset.split("/") for preset in PRESETS), strict=True)
        for word in {*groups, *names}:
            assert word in text

    def test_it_shows_how_to_do_what_people_do(self, text: str) -> None:
        for part in (
            "python train.py style=weeping_woman",
            "--multirun style=",
            "--config-dir DIR",
            "style.image=PATH",
        ):
            assert part in text
