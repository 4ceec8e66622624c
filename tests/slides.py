"""Slides of several files, as scanners write them: DICOM, Hamamatsu, MIRAX, Olympus, OME-TIFF, Zarr."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
TILE = 64

KINDS = {
    "level": "ORIGINAL\\PRIMARY\\VOLUME\\NONE",
    "reduced": "ORIGINAL\\PRIMARY\\VOLUME\\RESAMPLED",
    "label": "ORIGINAL\\PRIMARY\\LABEL\\NONE",
    "overview": "ORIGINAL\\PRIMARY\\OVERVIEW\\NONE",
    "thumbnail": "ORIGINAL\\PRIMARY\\THUMBNAIL\\RESAMPLED",
}


def _element(group: int, element: int, kind: str, value: bytes | str | int | Sequence[int]) -> bytes:
    if isinstance(value, str):
        value = value.encode() + (b"\0" if kind == "UI" else b" ") * (len(value) % 2)
    elif not isinstance(value, bytes):
        numbers = [value] if isinstance(value, int) else list(value)
        value = struct.pack(f"<{len(numbers)}{'H' if kind == 'US' else 'I'}", *numbers)
    head = struct.pack("<HH2s", group, element, kind.encode())
    if kind in ("OB", "OW", "SQ"):
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def _sequence(group: int, element: int, *items: bytes) -> bytes:
    """A sequence and items without lengths, as many writers have them."""
    inside = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + item + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
                      for item in items)  # fmt: skip
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return struct.pack("<HH2sHI", group, element, b"SQ", 0, 0xFFFFFFFF) + inside + end


def write_dicom(path: Path, pixels: np.ndarray, series: str, kind: str = "level", mpp: float = 0.5) -> None:
    """An instance of a series: a level in tiles, or a picture."""
    height, width = pixels.shape[:2]
    side = TILE if kind in ("level", "reduced") else None
    rows, columns = (side, side) if side else (height, width)
    down, along = -(-height // rows), -(-width // columns)
    padded = np.zeros((down * rows, along * columns, 3), np.uint8)
    padded[:height, :width] = pixels
    frames = padded.reshape(down, rows, along, columns, 3).swapaxes(1, 2).tobytes()
    instance = f"{series}.{sum(path.name.encode())}"
    syntax = "1.2.840.10008.1.2.1"
    meta = b"".join([
        _element(2, 1, "OB", b"\0\1"), _element(2, 2, "UI", WHOLE_SLIDE), _element(2, 3, "UI", instance),
        _element(2, 16, "UI", syntax), _element(2, 18, "UI", "1.2.3.4"),
    ])  # fmt: skip
    body = b"".join([
        _element(8, 8, "CS", KINDS[kind]), _element(8, 0x16, "UI", WHOLE_SLIDE), _element(8, 0x18, "UI", instance),
        _element(8, 0x60, "CS", "SM"), _sequence(8, 0x1140, _element(8, 0x1150, "UI", "1.2"), b""),
        _element(0x20, 0x0D, "UI", "1.2.3"), _element(0x20, 0x0E, "UI", series), _element(0x20, 0x13, "IS", "1"),
        _element(0x20, 0x9311, "CS", "TILED_FULL"),
        _element(0x28, 2, "US", 3), _element(0x28, 4, "CS", "RGB"), _element(0x28, 6, "US", 0),
        _element(0x28, 8, "IS", str(down * along)), _element(0x28, 0x10, "US", rows),
        _element(0x28, 0x11, "US", columns), _element(0x28, 0x100, "US", 8), _element(0x28, 0x101, "US", 8),
        _element(0x28, 0x102, "US", 7), _element(0x28, 0x103, "US", 0),
        _element(0x48, 6, "UL", width), _element(0x48, 7, "UL", height), _element(0x48, 0x303, "UL", 1),
        _sequence(0x5200, 0x9229, _sequence(0x28, 0x9110, _element(0x28, 0x30, "DS", f"{mpp / 1000}\\{mpp / 1000}"))),
        _element(0x7FE0, 0x10, "OB", frames),
    ])  # fmt: skip
    path.write_bytes(bytes(128) + b"DICM" + _element(2, 0, "UL", len(meta)) + meta + body)


def write_dicom_slide(folder: Path, pixels: np.ndarray, series: str = "1.2.3.9", ending: str = ".dcm") -> Path:
    """A series of two levels, label, overview and thumbnail; the finest level is not the first by name."""
    folder.mkdir(parents=True, exist_ok=True)
    small = np.ascontiguousarray(pixels[::2, ::2])
    pictures = {"1": ("reduced", small), "2": ("level", pixels), "3": ("label", small[:40, :50]),
                "4": ("overview", small[:30, :70]), "5": ("thumbnail", small)}  # fmt: skip
    for name, (kind, array) in pictures.items():
        write_dicom(folder / f"{series}.{name}{ending}", array, series, kind, 0.5)
    return folder / f"{series}.2{ending}"


def write_hamamatsu(folder: Path, pixels: np.ndarray, name: str = "slide") -> Path:
    """A VMS slide: a list, two JPEG files side by side, a map and a picture of the glass."""
    folder.mkdir(parents=True, exist_ok=True)
    half = pixels.shape[1] // 2
    parts = {"(0,0)": ("", pixels[:, :half]), "(1,0)": ("_1", pixels[:, half:])}
    lines = ["[Virtual Microscope Specimen]", "NoLayers=1", "NoJpegColumns=2", "NoJpegRows=1"]
    for key, (ending, array) in parts.items():
        file = f"{name}{ending}.jpg"
        Image.fromarray(np.ascontiguousarray(array)).save(
            folder / file, "JPEG", quality=100, subsampling=0, restart_marker_blocks=5
        )
        lines.append(f"ImageFile{'' if key == '(0,0)' else key}={file}")
    for key in ("MacroImage", "MapFile"):
        Image.fromarray(np.ascontiguousarray(pixels[::4, ::4])).save(
            folder / f"{name}_{key}.jpg", "JPEG", restart_marker_blocks=5
        )
        lines.append(f"{key}={name}_{key}.jpg")
    lines += ["SourceLens=20", f"PhysicalWidth={pixels.shape[1] * 500}", f"PhysicalHeight={pixels.shape[0] * 500}"]
    (folder / f"{name}.vms").write_text("\r\n".join(lines) + "\r\n")
    return folder / f"{name}.vms"


def write_mirax(folder: Path, name: str = "slide") -> Path:
    """The files of a MIRAX slide, by name; there are no pixels in them."""
    (folder / name).mkdir(parents=True)
    (folder / name / "Slidedat.ini").write_text("[GENERAL]\r\nSLIDE_VERSION = 01.02\r\n")
    (folder / name / "Data0000.dat").write_bytes(bytes(99))
    (folder / name / "Index.dat").write_bytes(bytes(99))
    Image.fromarray(np.zeros((60, 70, 3), np.uint8)).save(folder / f"{name}.mrxs", "JPEG")
    return folder / f"{name}.mrxs"


def write_olympus(folder: Path, pixels: np.ndarray, name: str = "slide") -> Path:
    """The files of an Olympus slide, by name: a TIFF with a preview, and a folder."""
    (folder / f"_{name}_" / "stack1").mkdir(parents=True)
    (folder / f"_{name}_" / "stack1" / "frame_t.ets").write_bytes(b"SIS\0" + bytes(99))
    tifffile.imwrite(folder / f"{name}.vsi", pixels[::4, ::4], photometric="rgb")
    return folder / f"{name}.vsi"


def write_ome_files(folder: Path, pixels: np.ndarray, name: str = "slide", companion: bool = False) -> list[Path]:
    """An OME-TIFF of three channels in a file each, every one with the metadata of all; or with it in a companion."""
    folder.mkdir(parents=True, exist_ok=True)
    height, width = pixels.shape[:2]
    uuids = [f"urn:uuid:00000000-0000-0000-0000-{number:012}" for number in range(3)]
    files = [f"{name}_c{2 - number}.ome.tif" for number in range(3)]  # the first is the last by name
    planes = "".join(
        f'<TiffData FirstC="{number}" FirstT="0" FirstZ="0" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{file}">{uuid}</UUID></TiffData>'
        for number, (file, uuid) in enumerate(zip(files, uuids, strict=True))
    )
    schema = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    image = (
        f'<Image ID="Image:0"><Pixels DimensionOrder="XYCZT" ID="Pixels:0" SizeC="3" SizeT="1" SizeX="{width}" '
        f'SizeY="{height}" SizeZ="1" Type="uint8">{planes}</Pixels></Image>'
    )
    for number, (file, uuid) in enumerate(zip(files, uuids, strict=True)):
        text = f'<?xml version="1.0" encoding="UTF-8"?><OME {schema} UUID="{uuid}">'
        text += f'<BinaryOnly MetadataFile="{name}.companion.ome" UUID="x"/>' if companion else image
        tifffile.imwrite(folder / file, pixels[:, :, number], tile=(32, 48), description=f"{text}</OME>", metadata=None)
    if companion:
        (folder / f"{name}.companion.ome").write_text(f"<OME {schema}>{image}</OME>")
    return [folder / file for file in files]


def write_zarr_folder(folder: Path, pixels: np.ndarray) -> Path:
    """A plain Zarr array whose folder is not called so, of one chunk."""
    folder.mkdir(parents=True)
    meta = {"zarr_format": 2, "shape": pixels.shape, "chunks": pixels.shape, "dtype": "|u1", "compressor": None,
            "fill_value": 0, "order": "C", "filters": None}  # fmt: skip
    (folder / ".zarray").write_text(json.dumps(meta))
    (folder / "0.0.0").write_bytes(pixels.tobytes())
    return folder
