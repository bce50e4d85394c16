"""`Preprocess`: from pixels to what the network expects, as a spec that can be written on one line or in a TOML file.

resize=256,crop=224,mean=0.485/0.456/0.406,std=0.229/0.224/0.225,layout=nchw
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from netsuke.core.errors import FileError, Problem, UsageError, near
from netsuke.data.samples import AnyArray

LAYOUTS = ("nchw", "nhwc")
SIDECAR = "preprocess.toml"


@dataclass(frozen=True)
class Preprocess:
    """Pixel values in, float32 out: ((pixel / scale) - mean) / std per channel.

    resize   length of the shorter side before the crop, or (height, width); None: as it is
    crop     side of a centred square, or (height, width); None: no crop
    mean     per channel or one number
    std      per channel or one number
    scale    what pixels are divided by first
    layout   "nchw" or "nhwc"
    gray     convert images to one channel
    """

    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 255.0
    layout: str = "nchw"
    gray: bool = False

    def __post_init__(self) -> None:
        problems = []
        if self.layout not in LAYOUTS:
            problems.append(Problem("layout", "preprocess", self.layout, ", ".join(LAYOUTS)))
        if any(not s > 0 for s in (*self.std, self.scale)):
            problems.append(Problem("std and scale must be positive", "preprocess", f"{self.std}, {self.scale}"))
        sides = [s for v in (self.resize, self.crop) if v is not None for s in (v if isinstance(v, tuple) else (v,))]
        if any(s < 1 for s in sides):
            problems.append(Problem("resize and crop must be positive", "preprocess", f"{self.resize}, {self.crop}"))
        if problems:
            raise UsageError(problems)

    @classmethod
    def parse(cls, text: str) -> Preprocess:
        """From "key=value,..." with "/" between the numbers of a list."""
        table: dict[str, Any] = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            key, equals, value = part.partition("=")
            if not equals:
                raise UsageError(Problem("a preprocessing option needs a value", got=part, allowed="key=value"))
            table[key.strip()] = _value(key.strip(), value.strip())
        return cls.from_table(table, "--preprocess")

    @classmethod
    def from_table(cls, table: Mapping[str, Any], where: str) -> Preprocess:
        """From a TOML table; UsageError lists unknown keys and values that are not numbers."""
        names = [f.name for f in dataclasses.fields(cls)]
        problems = [Problem("unknown key", where, key, near(key, names)) for key in table if key not in names]
        values: dict[str, Any] = {}
        for key, value in table.items():
            if key in names:
                values[key] = _checked(key, value, where, problems)
        if problems:
            raise UsageError(problems)
        return cls(**values)

    @classmethod
    def load(cls, path: Path) -> Preprocess:
        """From a TOML file."""
        try:
            return cls.from_table(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise FileError(Problem("the preprocessing cannot be read", str(path), str(error))) from error

    def image(self, path: Path) -> npt.NDArray[np.uint8]:
        """Read one image file, resize (bilinear) and crop it: uint8 [H, W, C]."""
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(path) as opened:
                picture = opened.convert("L" if self.gray else "RGB")
        except (OSError, UnidentifiedImageError, ValueError) as error:
            raise FileError(Problem("not a readable image", str(path), str(error))) from error
        if self.resize is not None:
            picture = picture.resize(_target(self.resize, picture.size), Image.Resampling.BILINEAR)
        pixels = np.asarray(picture, np.uint8)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        return pixels if self.crop is None else _crop(pixels, self.crop, path)

    def __call__(self, x: AnyArray) -> npt.NDArray[np.float32]:
        """uint8 or float [N, H, W, C] or [N, H, W] to float32 in the layout."""
        if x.ndim == 3:
            x = x[..., None]
        if x.ndim != 4:
            got = f"{x.ndim} dimensions"
            raise UsageError(Problem("preprocessing takes images [N, H, W, C] or [N, H, W]", "x", got))
        channels = x.shape[-1]
        for name, value in (("mean", self.mean), ("std", self.std)):
            if len(value) not in (1, channels):
                got = f"{len(value)} numbers for {channels} channels"
                raise UsageError(Problem(name, "preprocess", got, f"1 or {channels} numbers"))
        y = np.asarray(x, np.float32) / np.float32(self.scale)
        y = np.asarray((y - np.array(self.mean, np.float32)) / np.array(self.std, np.float32), np.float32)
        return np.ascontiguousarray(y.transpose(0, 3, 1, 2)) if self.layout == "nchw" else y


def _value(key: str, text: str) -> Any:
    if key == "layout":
        return text
    if text in ("true", "false"):
        return text == "true"
    try:
        numbers = [float(n) for n in text.split("/")]
    except ValueError:
        raise UsageError(Problem("not a number", "--preprocess", f"{key}={text}", "numbers, with / between")) from None
    numbers = [int(n) if n.is_integer() else n for n in numbers]
    return numbers if len(numbers) > 1 else numbers[0]


def _checked(key: str, value: Any, where: str, problems: list[Problem]) -> Any:
    if key in ("layout", "gray"):
        wanted = str if key == "layout" else bool
        if not isinstance(value, wanted):
            problems.append(Problem("wrong type", f"{where} {key}", repr(value), wanted.__name__))
        return value
    numbers = value if isinstance(value, list) else [value]
    kind = (int,) if key in ("resize", "crop") else (int, float)
    if not numbers or any(isinstance(n, bool) or not isinstance(n, kind) for n in numbers):
        problems.append(Problem("wrong type", f"{where} {key}", repr(value), "a number or a list of numbers"))
        return value
    if key in ("mean", "std"):
        return tuple(float(n) for n in numbers)
    if key == "scale":
        return float(numbers[0])
    if len(numbers) > 2:
        problems.append(Problem("one side or height and width", f"{where} {key}", repr(value)))
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _target(resize: int | tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    width, height = size
    ratio = resize / min(width, height)
    return max(1, round(width * ratio)), max(1, round(height * ratio))


def _crop(pixels: npt.NDArray[np.uint8], crop: int | tuple[int, int], path: Path) -> npt.NDArray[np.uint8]:
    height, width = crop if isinstance(crop, tuple) else (crop, crop)
    if pixels.shape[0] < height or pixels.shape[1] < width:
        got = f"{pixels.shape[0]}x{pixels.shape[1]}"
        raise UsageError(Problem("the image is smaller than the crop", str(path), got, f"{height}x{width}", "resize"))
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]
