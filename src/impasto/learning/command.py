"""The command that trains: Hydra reads the options, and every error of it becomes one line."""

import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import hydra
from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import AliasToken, MappingNode, YAMLError, scan
from yaml import compose as compose_yaml

from impasto.learning.config import ConfigError, TrainConfig, did_you_mean, option_names, validate

ConfigStore.instance().store(name="schema", node=TrainConfig)

_TEXTS = (
    *("style.image", "style.name", "style.credit", "style.licence"),
    *("data.root", "data.cache", "loss_network.weights", "init", "run_dir"),
)
"""Options whose value is taken to the letter, so that a path or a name may hold spaces, brackets or commas."""

_FLAGS = (
    *("--help", "--multirun", "--config-dir", "--cfg", "--resolve", "--package", "--info", "--hydra-help"),
    *("-h", "-m", "-cd", "-c", "-p", "-i"),
)
"""Hydra's own words that begin with dashes, but for those that read configs past ``_check_configs``, or a pickle."""

_CONFIG_DIR = ("--config-dir", "-cd")

_LONGEST_CONFIG = 100_000  # bytes

_WRONG_VALUES = {
    r"Value '(.*)' of type '\w+' could not be converted to Integer": r"a whole number, got '\1'",
    r"Value '(.*)' of type '\w+' could not be converted to Float": r"a number, got '\1'",
    r"Value '(.*)' is not a valid bool": r"true or false, got '\1'",
    r"Invalid value '(.*)', expected one of \[(.*)\]": r"one of \2, got '\1'",
    r"Cannot convert '\w+' to string: '(.*)'": r"a word, got '\1'",
    r"field '.*' is not Optional": "a value, got null",
    r"Cannot (assign|merge)": "weights by layer, such as {relu2_2:1,relu3_3:0.5}, got something else",
}
"""What OmegaConf says of a value of the wrong type, and what is said instead."""

_SWEEP = ("--multirun", "-m")

_SWITCHES = ("budget.decay", "resume")
"""Options that are true or false; OmegaConf takes any number but 0 for true."""


def main(argv: Sequence[str]) -> int:
    """Read the options, train every style they ask for, and return the exit status.

    Raises:
        ValueError, TypeError, OSError: bad input, for the caller to print.
    """
    # Hydra then raises its errors instead of printing them over several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _check_flags(argv)
    _check_switches(argv)
    _check_configs(argv)
    # Hydra's parser wants the options side by side, after its own flags.
    sys.argv = [sys.argv[0], *(_quote(word) for word in sorted(argv, key=_is_option))]
    errors: list[ValueError | TypeError | OSError] = []
    try:
        with _explained():
            hydra.main(version_base="1.3", config_path="pkg://impasto.configs", config_name="train")(
                lambda raw: _run_job(raw, errors, words=argv)
            )()
    except (_Stopped, KeyboardInterrupt) as stop:
        for error in errors:
            print(f"error: {error}", file=sys.stderr)
        if isinstance(stop, _Stopped):
            return stop.args[0]
        raise
    if len(errors) > 1:
        raise ValueError(f"{len(errors)} styles were not trained: {'; '.join(map(str, errors))}")
    if errors:
        raise errors[0]
    return 0


@contextmanager
def _explained() -> Iterator[None]:
    """Raise ConfigError, a line that says what to do, for what Hydra and its parsers raise."""
    try:
        yield
    except MissingConfigException as error:
        raise ConfigError(_explain_missing(error)) from error
    except (YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"expected YAML of plain values in the files of --config-dir, got something else: {reason}"
        ) from error
    except OverrideParseException as error:
        raise ConfigError(f"could not read the option {error.override!r}: write NAME=VALUE, without spaces") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error)) from error
    except ValueError as error:
        if not str(error).startswith("Config group override must be"):
            raise
        raise ConfigError(
            "style, data, loss, loss_network and budget each take a name, got another value: see --help"
        ) from error


class _Stopped(BaseException):
    """Ends a whole sweep with an exit status: Hydra catches every Exception and goes on with the next style."""


def _run_job(raw: DictConfig, errors: list[ValueError | TypeError | OSError], *, words: Sequence[str]) -> None:
    """Train one style; bad input is kept for the end, so that a sweep still trains the other styles."""
    try:
        config = to_config(raw)
        validate(config)
        # Heavy, and only now is the input known to be good.
        from impasto.learning.stopping import signals_given_back  # noqa: PLC0415
        from impasto.learning.training import run  # noqa: PLC0415

        with signals_given_back():  # a second Ctrl-C is ignored until all is said
            stopped = run(config, go_on=_command_to_go_on(words), paint=_begin("stylize"))
            if stopped is not None and stopped.status != 0:
                for command in _commands_left(words)[int(stopped.steps > 0) :]:
                    print(f"not trained yet: {command}", file=sys.stderr)
                raise _Stopped(stopped.status)
    except KeyboardInterrupt as stop:  # in the preparation
        for command in _commands_left(words):
            stop.add_note(f"not trained yet: {command}")
        raise
    except (ValueError, TypeError, OSError) as error:
        errors.append(error)


def _command_to_go_on(words: Sequence[str]) -> str:
    """Return the command that goes on with a training that was started with these words, or as one of a sweep."""
    job = HydraConfig.get()
    if job.mode is RunMode.MULTIRUN:
        words = [*_flags(words), *job.overrides.task]
    words = [word for word in words if not re.match(r"\+*resume=", word)]
    return shlex.join([*_begin("train"), *words, "resume=true"])


def _commands_left(words: Sequence[str]) -> list[str]:
    """Return the commands of this training and of those after it in the sweep of these words; none without one."""
    job = HydraConfig.get()
    if job.mode is not RunMode.MULTIRUN:
        return []
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    options = parser.parse_overrides([_quote(word) for word in words if _is_option(word)])
    (jobs,) = BasicSweeper.split_arguments(options, max_batch_size=None)
    return [shlex.join([*_begin("train"), *_flags(words), *each]) for each in jobs[job.job.num :]]


def _flags(words: Sequence[str]) -> list[str]:
    """Return the words that are no options, but for those that make a sweep."""
    return [word for word in words if not _is_option(word) and word not in _SWEEP]


def _begin(command: str) -> list[str]:
    """Return the words that start another command as this one was started."""
    program = Path(sys.argv[0])
    begin = {"train.py": [str(program.with_name(f"{command}.py"))], "__main__.py": ["-m", "impasto", command]}
    return ["python", *begin[program.name]] if program.name in begin else ["impasto", command]


def read_options(words: Sequence[str]) -> TrainConfig:
    """Return the checked options that ``train.py`` would have by these words; raises ConfigError as it would."""
    _check_switches(words)
    with _explained(), initialize_config_module("impasto.configs", version_base="1.3"):
        config = to_config(compose("train", list(words)))
    validate(config)
    return config


def to_config(raw: DictConfig) -> TrainConfig:
    """Return the typed options; raises ConfigError for an unknown or missing one."""
    try:
        # By way of plain values: keys that were added with "+" are then unknown ones.
        plain = OmegaConf.to_container(raw, resolve=True, throw_on_missing=True)
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrainConfig), plain))
    except OmegaConfBaseException as error:
        raise ConfigError(_explain(error)) from error
    assert isinstance(config, TrainConfig)
    return config


def _check_flags(argv: Sequence[str]) -> None:
    """Raise ConfigError for an unknown flag, which Hydra answers with half a page."""
    for word in argv:
        flag = word.partition("=")[0]
        if flag.startswith("-") and flag not in _FLAGS:
            raise ConfigError(f"there is no {flag}: {did_you_mean(flag, _FLAGS)}see --help")
    if argv and argv[-1] in _CONFIG_DIR:
        raise ConfigError(f"expected a folder of configs after {argv[-1]}, got nothing")


def _check_switches(words: Sequence[str]) -> None:
    """Raise ConfigError for a number other than 0 and 1 where true or false is meant, also as one of a sweep."""
    for name, _, values in (word.lstrip("+").partition("=") for word in words):
        for value in (each.strip(" '\"") for each in values.split(",") if name in _SWITCHES):
            if re.fullmatch(r"-?\d+", value) and int(value) not in (0, 1):
                raise ConfigError(f"expected {name} to be true or false, got {value!r}")


def _check_configs(argv: Sequence[str]) -> None:
    """Raise ConfigError for a file of the user's own configs that is more than a few plain values of its own group."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith(_CONFIG_DIR) else [word])]
    folders = [Path(words[i + 1]) for i, word in enumerate(words[:-1]) if word in _CONFIG_DIR]
    for path in (path for folder in folders for path in _find_configs(folder)):
        text = path.read_bytes()
        if len(text) > _LONGEST_CONFIG or not _is_plain(text):
            raise ConfigError(
                "expected a config of a few plain values, without aliases (*name), defaults or a package, "
                f"got {str(path)!r}"
            )


def _find_configs(folder: Path) -> Iterator[Path]:
    """Yield the configs of a folder, in linked folders too, which Hydra reads as well."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # a link may lead back up
            folders.clear()
        seen.add(real)
        yield from (Path(parent, name) for name in names if name.endswith(".yaml"))


def _is_plain(text: bytes) -> bool:
    """Return whether a config names no other config and sets no options but its group's: Hydra's own can run code.

    Nor may it have aliases: a few lines that each repeat the line before nine times would fill the memory.
    """
    with suppress(YAMLError, UnicodeDecodeError, RecursionError):  # Hydra says so, if it reads the file at all
        if re.search(rb"#\s*@", text) or any(isinstance(token, AliasToken) for token in scan(text)):
            return False
        root = compose_yaml(text)
        return not isinstance(root, MappingNode) or all(key.value not in ("defaults", "<<") for key, _ in root.value)
    return True


def _is_option(word: str) -> bool:
    return re.match(r"~|\+*\w[^=]*=", word) is not None


def _quote(word: str) -> str:
    """Return a word of the command line with a value that is text quoted for Hydra's grammar."""
    name, equals, value = word.partition("=")
    is_quoted = re.fullmatch(r"""(['"])(\\.|(?!\1).)*\1""", value) is not None
    if name not in _TEXTS or not equals or is_quoted or value in {"", "null", "???"}:
        return word
    # In Hydra's grammar a backslash means itself, unless a quote follows.
    escaped = re.sub(r'(\\*)("|$)', lambda match: 2 * match[1] + ("\\" + match[2] if match[2] else ""), value)
    return f'{name}="{escaped}"'


def _explain_missing(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file or "").rpartition("/")
    options = [option for option in error.options or [] if not option.startswith("_")]
    if not group or not options:
        return _first_line(error)
    return f"there is no {group}={name}: {did_you_mean(name, options)}it can be {', '.join(options)}"


def _explain(error: Exception) -> str:
    """Return one line for an error of Hydra or OmegaConf, naming the closest option for an unknown one."""
    text = f"{error} {error.__cause__ or ''}"
    if "Ambiguous value" in text:
        return f"{_first_line(error)}: to train several, one after the other, add --multirun"
    full_key = re.search(r"full_key: (\S+)", text)
    name = full_key[1] if full_key is not None else ""
    if "issing mandatory value" in text:
        return f"expected {name}=VALUE, got none: add it to the command"
    if unknown := re.search(r"Could not override '([^']+)'|Key '[^']+' not in '", text):
        name = name if name.startswith(f"{unknown[1]}.") else unknown[1] or name
        if re.match(r"loss\.\w+_layers\.", name):
            return f"{name!r} has no weight yet: add it with +{name}=VALUE"
        return f"there is no option {name!r}: {did_you_mean(name, option_names())}see --help"
    for pattern, words in _WRONG_VALUES.items():
        if name and (wrong := re.search(pattern, text, re.DOTALL)):
            return f"expected {name} to be {wrong.expand(words)}"
    return f"{name}: {_first_line(error.__cause__ or error)}" if name else _first_line(error)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return next((line for line in lines if not line.endswith("raised while composing config:")), lines[0])
