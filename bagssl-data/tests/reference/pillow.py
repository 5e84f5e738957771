"""Reference values for color changes and resampling. Writes pillow.json. Run with Pillow installed: python pillow.py

The color changes are those of torchvision's functional transforms on Pillow images, which call these functions.
"""

import json
from pathlib import Path

import PIL
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

HEIGHT, WIDTH = 18, 25


def pixel(row, column):
    """Smooth in places, rough in others, with greys, black and white among them."""
    if row < 2:
        return (10 * column, 10 * column, 10 * column)
    if row < 4:
        return (255, 255 - 10 * column, 0)
    return ((row * 41 + column * 3) % 256, (row * 5 + column * column * 7) % 256, (row * column * 3) % 256)


def hue(image, turns):
    h, s, v = image.convert("HSV").split()
    shift = int(turns * 255) % 256
    return Image.merge("HSV", (h.point(lambda level: (level + shift) % 256), s, v)).convert("RGB")


def data(image):
    return list(image.tobytes())


image = Image.new("RGB", (WIDTH, HEIGHT))
image.putdata([pixel(row, column) for row in range(HEIGHT) for column in range(WIDTH)])
grey = image.convert("L").convert("RGB")
color = {
    "brightness": [(f, data(ImageEnhance.Brightness(image).enhance(f))) for f in (0.0, 0.63, 1.0, 1.37)],
    "contrast": [(f, data(ImageEnhance.Contrast(image).enhance(f))) for f in (0.0, 0.63, 1.37)],
    "saturation": [(f, data(ImageEnhance.Color(image).enhance(f))) for f in (0.0, 0.63, 1.37)],
    "hue": [(f, data(hue(image, f))) for f in (-0.2, -0.013, 0.1, 0.5)],
    "solarise": [(f, data(ImageOps.solarize(image, f))) for f in (0, 100, 128)],
}
blur = [(f, data(image.filter(ImageFilter.GaussianBlur(f)))) for f in (0.1, 0.5, 1.0, 1.37, 2.0, 9.5)]
resample = []
for name, method in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
    # Crops as (top, left, height, width): smaller, larger, of another shape, one pixel, the whole.
    for crop in ((2, 5, 16, 16), (1, 3, 11, 17), (4, 0, 5, 3), (9, 9, 1, 1), (0, 0, HEIGHT, WIDTH)):
        top, left, height, width = crop
        part = image.crop((left, top, left + width, top + height)).resize((8, 8), method)
        resample.append({"filter": name, "crop": crop, "side": 8, "rgb": data(part)})
reference = {
    "made_by": f"pillow.py, Pillow {PIL.__version__}",
    "height": HEIGHT,
    "width": WIDTH,
    "rgb": data(image),
    "grey": data(grey),
    "colour": {name: [{"factor": f, "rgb": rgb} for f, rgb in cases] for name, cases in color.items()},
    "blur": [{"sigma": f, "rgb": rgb} for f, rgb in blur],
    "resample": resample,
}
Path(__file__).with_suffix(".json").write_text(json.dumps(reference, separators=(",", ":")) + "\n")
