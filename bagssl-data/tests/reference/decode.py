"""Small images of every kind, and what Pillow makes of them. Writes decode.json. Run with Pillow installed: python decode.py

Each file stands in hexadecimal beside the RGB bytes that Pillow decodes it to. `within` is the largest difference in grey levels that
is allowed: 0 in lossless formats, 1 in grey JPEGs, 2 in those of color, where the inverse cosine transform and then the colors
are rounded; more where the chroma is halved, since another filter brings it to full size, and in CMYK, which is rounded twice.
"""

import io
import json
from pathlib import Path

import PIL
from PIL import Image

HEIGHT, WIDTH = 19, 26


def picture(mode):
    image = Image.new("RGB", (WIDTH, HEIGHT))
    image.putdata([(9 * x, 13 * y, 5 * (x + y)) for y in range(HEIGHT) for x in range(WIDTH)])
    return image.convert(mode)


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def translucent(mode):
    image = picture(mode)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def sixteen():
    return Image.frombytes("I;16", (WIDTH, HEIGHT), b"".join((x * 2500).to_bytes(2, "little") for _ in range(HEIGHT) for x in range(WIDTH)))


exif = Image.Exif()
exif[0x112] = 6
full = {"quality": 90, "subsampling": 0}
two = {"save_all": True, "append_images": [picture("L").transpose(Image.Transpose.ROTATE_180)]}
cases = {
    "jpeg": (encoded(picture("RGB"), "JPEG", **full), 2),
    "jpeg, halved chroma": (encoded(picture("RGB"), "JPEG", quality=90, subsampling=2), 4),
    "jpeg, grey": (encoded(picture("L"), "JPEG", quality=90), 1),
    "jpeg, CMYK": (encoded(picture("CMYK"), "JPEG", quality=95), 3),
    "jpeg, progressive": (encoded(picture("RGB"), "JPEG", progressive=True, **full), 2),
    "jpeg, turned": (encoded(picture("RGB"), "JPEG", exif=exif, **full), 2),
    "png": (encoded(picture("RGB"), "PNG"), 0),
    "png, grey": (encoded(picture("L"), "PNG"), 0),
    "png, palette": (encoded(picture("P"), "PNG"), 0),
    "png, alpha": (encoded(translucent("RGB"), "PNG"), 0),
    "png, grey and alpha": (encoded(translucent("L"), "PNG"), 0),
    "webp, lossless": (encoded(picture("RGB"), "WEBP", lossless=True), 0),
    "webp": (encoded(picture("RGB"), "WEBP", quality=90), 4),
    "gif, two frames": (encoded(picture("P"), "GIF", **two), 0),
    "bmp": (encoded(picture("RGB"), "BMP"), 0),
}
made = []
for name, (file, within) in cases.items():
    image = Image.open(io.BytesIO(file))
    rgb = image.convert("RGB")
    made.append({"name": name, "file": file.hex(), "rgb": rgb.tobytes().hex(), "within": within})
# Of 16 bits Pillow makes 8 by cutting them off at 255; here they are scaled by 255 / 65535.
wide = encoded(sixteen(), "PNG")
levels = [round(x * 2500 * 255 / 65535) for _ in range(HEIGHT) for x in range(WIDTH) for _ in range(3)]
made.append({"name": "png, 16 bits", "file": wide.hex(), "rgb": bytes(levels).hex(), "within": 0})
reference = {"made_by": f"decode.py, Pillow {PIL.__version__}", "height": HEIGHT, "width": WIDTH, "cases": made}
Path(__file__).with_suffix(".json").write_text(json.dumps(reference, separators=(",", ":")) + "\n")
