"""What TensorBoard shows of a run."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]


def curves(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Every point of TensorBoard, but for the speed, which is never the same; pictures count by their bytes."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    rows = {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    rows |= {
        tag: [(each.step, hash(each.encoded_image_string)) for each in events.Images(tag)]
        for tag in events.Tags()["images"]
    }
    rows["train/images_per_second"] = [(step, 0) for step, _ in rows["train/images_per_second"]]
    return rows
