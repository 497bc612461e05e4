"""Tiny clips that tests make for themselves."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.subtitles.subtitle import SubtitleSet
from numpy.typing import NDArray

RATE = 8000


@dataclass
class Clip:
    """What a clip is made of; ``times`` in ticks of the time base."""

    size: tuple[int, int] = (32, 24)
    times: Sequence[int] = tuple(range(0, 8 * 512, 512))
    time_base: Fraction = Fraction(1, 5120)
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    colorspace: int = 2
    color_range: int = 0
    has_sound: bool = False
    sound_codec: str = "aac"
    sound_rate: int = RATE
    subtitles: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    rotation: int = 0
    sample_aspect_ratio: Fraction = Fraction(1)
    metadata: dict[str, str] = field(default_factory=dict)
    chapters: Sequence[str] = ()
    stream_metadata: dict[str, str] = field(default_factory=dict)


def picture(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Soft colours that move with the number, bright in the upper left quarter."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([128 + 60 * np.sin((x + number) / 9), 90 + 2 * y, np.full(x.shape, 120.0)], axis=-1)
    pixels[: height // 2, : width // 2] += 60
    return pixels.clip(0, 255).astype(np.uint8)


def write_clip(path: Path, clip: Clip | None = None) -> Path:
    """Write a clip; returns its path."""
    clip = clip or Clip()
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=clip.options) as out:
        out.metadata.update(clip.metadata)
        out.set_chapters([_chapter(number, title) for number, title in enumerate(clip.chapters)])
        video: Any = out.add_stream(clip.codec, Fraction(10), {"crf": "4"} if clip.codec == "libx264" else {})
        video.width, video.height = clip.size
        video.pix_fmt = clip.pix_fmt
        video.codec_context.time_base = clip.time_base
        video.codec_context.colorspace, video.codec_context.color_range = clip.colorspace, clip.color_range
        video.codec_context.sample_aspect_ratio = clip.sample_aspect_ratio
        if clip.rotation:
            video.set_display_rotation(clip.rotation)
        sound: Any = out.add_stream(clip.sound_codec, clip.sound_rate) if clip.has_sound else None
        titles: Any = out.add_stream(clip.subtitles) if clip.subtitles else None
        for stream in out.streams:
            stream.metadata.update(clip.stream_metadata)
        if titles is not None:
            titles.codec_context.subtitle_header = b"[Script Info]\n[V4+ Styles]\n[Events]\n"
            titles.codec_context.time_base = titles.time_base = Fraction(1, 1000)
        for number, time in enumerate(clip.times):
            out.mux(video.encode(_frame(clip, number, time)))
            if sound is not None:
                out.mux(sound.encode(_sound(number, clip.sound_rate)))
        out.mux(video.encode(None))
        if sound is not None:
            out.mux(sound.encode(None))
        if titles is not None:
            words = SubtitleSet.create(b"0,0,Default,,0,0,0,,paint", 0, 400, 0)
            packet = titles.codec_context.encode_subtitle(words)
            packet.stream, packet.pts, packet.dts, packet.duration = titles, 100, 100, 400
            packet.time_base = Fraction(1, 1000)
            out.mux(packet)
    return path


def _frame(clip: Clip, number: int, time: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(picture(number, clip.size), "rgb24").reformat(
        format=clip.pix_fmt,
        dst_colorspace=None if clip.colorspace == 2 else clip.colorspace,
        dst_color_range=clip.color_range or None,
    )
    frame.pts, frame.time_base = time, clip.time_base
    return frame


def _sound(number: int, rate: int) -> av.AudioFrame:
    wave = (8000 * np.sin(np.arange(rate // 10) / 5)).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(wave, "s16", "mono")
    frame.sample_rate, frame.pts = rate, number * rate // 10
    return frame


def _chapter(number: int, title: str) -> Any:
    start = 200 * number
    return {
        "id": number + 1,
        "start": start,
        "end": start + 200,
        "time_base": Fraction(1, 1000),
        "metadata": {"title": title},
    }


def frames(path: Path) -> list[av.VideoFrame]:
    """Return the frames of a clip."""
    with av.open(str(path)) as clip:
        return list(clip.decode(video=0))


def times(path: Path) -> list[Fraction]:
    """Return when each frame is shown, in seconds."""
    return [frame.pts * frame.time_base for frame in frames(path) if frame.pts is not None and frame.time_base]


def packets(path: Path, kind: str) -> list[tuple[bytes, Fraction]]:
    """Return content and time of each packet of the first stream of a kind."""
    with av.open(str(path)) as clip:
        stream = clip.streams.best(kind)  # type: ignore[arg-type]
        found = [packet for packet in clip.demux(stream) if packet.size]
        return [(bytes(packet), packet.pts * packet.time_base) for packet in found if packet.pts is not None]
