"""`images:DIR`: where labels come from, what is cut out, how much is held, and the sentences of the refusals."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewbits.data.images import Crop, Images
from fewbits.data.normalize import CAFFE_IMAGENET, Normalize
from fewbits.data.sets import load
from fewbits.errors import DataError

PLAIN = Normalize((0.0,), (1.0,), divide=1.0)
SHAPE = (3, 4, 4)


def write(file: Path, colour: tuple[int, int, int] = (1, 2, 3), size: tuple[int, int] = (6, 5)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(file)


def names(images: object) -> list[str]:
    assert isinstance(images, Images)
    return [file.name for file in images.files]


def test_a_table_decides_labels_and_order(tmp_path: Path) -> None:
    for i in range(9):
        write(tmp_path / "photos" / f"{i}.png", (i, 0, 0))
    rows = [f"{i}{'.png' if i % 2 else ''},{10 * i},someone" for i in (8, 6, 7, 5, 3, 0, 4)]
    for table in (tmp_path / "photos_labels.csv", tmp_path / "photos/labels.csv"):
        table.write_text("file,class,author\n" + "\n".join(rows))
        data = load(f"images:{tmp_path / 'photos'}", SHAPE)
        assert (names(data.calibration.x), names(data.test.x)) == (
            ["8.png", "6.png"], ["7.png", "5.png", "3.png", "0.png", "4.png"])
        assert data.train is data.calibration
        ((x, y),) = data.test.batches(9, PLAIN)
        assert (x[:, 0, 0, 0].tolist(), y.tolist()) == ([7, 5, 3, 0, 4], [70, 50, 30, 0, 40])


def test_folders_are_classes_and_come_mixed(tmp_path: Path) -> None:
    for i in range(12):
        for name in ("2", "10"):
            write(tmp_path / "all" / name / f"{i}.jpg", (int(name), 0, 0))
    data = load(f"images:{tmp_path / 'all'}", SHAPE)
    assert (len(data.calibration), len(data.test)) == (8, 16)
    assert data.calibration.y is not None
    assert set(data.calibration.y.tolist()) == {0, 1}
    for x, y in data.test.batches(5, PLAIN):
        assert torch.equal(y, (x[:, 0, 0, 0] > 5).long())  # folder 2 before folder 10, as numbers go
    (tmp_path / "all/2").rename(tmp_path / "all/two")
    assert load(f"images:{tmp_path / 'all'}", SHAPE).test.y is not None


def test_train_and_val_folders_are_the_splits(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("val", 2)):
        for name in ("cat", "dog"):
            for i in range(count):
                write(tmp_path / part / name / f"{i}.png")
    data = load(f"images:{tmp_path}", SHAPE)
    assert (len(data.train), len(data.calibration), len(data.test)) == (10, 10, 4)
    write(tmp_path / "val/cow/0.png")
    with pytest.raises(DataError, match=r"train and .*val hold different classes; give both the same folders"):
        load(f"images:{tmp_path}", SHAPE)


def test_images_without_labels_can_calibrate(tmp_path: Path) -> None:
    for i in range(6):
        write(tmp_path / f"{i}.JPEG", (i, i, i))
    data = load(f"images:{tmp_path}", SHAPE)
    assert data.test.y is None
    assert [len(x) for x in data.calibration.inputs(2, PLAIN)] == [2]


def test_the_short_side_is_resized_and_the_middle_cut_out(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (299, 450, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    got = Images((tmp_path / "a.png",), Crop(256, 224)).read()[0]
    resized = Image.fromarray(pixels).resize((385, 256), Image.Resampling.BILINEAR)
    assert np.array_equal(got.permute(1, 2, 0).numpy(), np.asarray(resized)[16:240, 80:304])


@pytest.mark.parametrize(
    ("shape", "crop"),
    [(None, Crop(256, 224)), ((3, 224, 224), Crop(256, 224)), ((3, 227, 227), Crop(256, 227)),
     ((3, 96, 96), Crop(110, 96)), ((3, 299, 299), Crop(342, 299))],
)
def test_the_network_decides_the_sizes(shape: tuple[int, ...] | None, crop: Crop) -> None:
    assert Crop.of_shape(shape) == crop


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 64), (7,), (3, None, 8)])
def test_refuses_networks_that_take_no_square_rgb_images(tmp_path: Path, shape: tuple[int | None, ...]) -> None:
    with pytest.raises(DataError, match=r"gives square RGB images, and the network takes \["):
        load(f"images:{tmp_path}", shape)


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (5, 5), 7).save(tmp_path / "a.png")
    Image.new("RGBA", (5, 5), (1, 2, 3, 4)).save(tmp_path / "b.png")
    files = tuple(sorted(tmp_path.iterdir()))
    assert Images(files, Crop(5, 4)).read()[:, :, 0, 0].tolist() == [[7, 7, 7], [1, 2, 3]]


def test_a_pass_decodes_each_image_once_and_holds_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(12):
        write(tmp_path / f"{i:02}.png", (i, 0, 0))
    data = load(f"images:{tmp_path}", SHAPE)
    read: list[int] = []
    plain = Images.read
    monkeypatch.setattr(Images, "read", lambda self: read.append(len(self)) or plain(self))
    batches = data.test.inputs(3, PLAIN)
    assert read == []
    next(iter(batches))
    assert read == [3]
    assert torch.cat(list(batches))[:, 0, 0, 0].tolist() == list(range(4, 12))
    assert read == [3, 3, 3, 2]
    assert repr(data.test) == "Split(x=uint8 [8, 3, 4, 4], y=None)"


def test_blue_comes_first_where_the_network_wants_it() -> None:
    rgb = torch.tensor([[[[124]], [[119]], [[105]]]], dtype=torch.uint8)
    assert CAFFE_IMAGENET(rgb).flatten().tolist() == [1.0, 2.0, 1.0]


def test_refuses_what_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    with pytest.raises(DataError, match=r"There is no folder .*photos; give the one that holds the images"):
        load(f"images:{folder}")
    folder.mkdir()
    with pytest.raises(DataError, match=r"photos holds no PNG or JPEG images, nor folders of them"):
        load(f"images:{folder}")
    write(folder / "a.png")
    with pytest.raises(DataError, match=r"photos holds 1 image\(s\), too few"):
        load(f"images:{folder}")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", r"labels.csv names no images; write a row of names"),
        ("file,class\n", r"labels.csv names no images"),
        ("file,class\na.png", r"Row 2 of .*labels.csv is 'a.png'; write a file and its class from 0"),
        ("file,class\na.png,\x1d1", r"Row 2 of .*labels.csv is 'a.png,\\x1d1'"),  # which str.strip takes for a space
        ("file,class\na.png,cat", r"Row 2 of .*labels.csv is 'a.png,cat'"),
        ("file,class\na.png,-1", r"Row 2 of .*labels.csv is 'a.png,-1'"),
        ("file,class\na,1\n\nb,2", r"Row 3 of .*labels.csv names 'b', and .* has no such image"),
        ("file,class\n../a.png,1", r"names '../a.png', and .* has no such image"),
        ("\0\xff", r"labels.csv"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_its_row(tmp_path: Path, content: str, sentence: str) -> None:
    write(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=sentence):
        load(f"images:{tmp_path}")


def test_two_tables_are_refused(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("file,class\n")
    with pytest.raises(DataError, match=r"holds 2 .csv files; leave only the one with the labels"):
        load(f"images:{tmp_path}")


@pytest.mark.parametrize("keep", [0, 30, 150])
def test_a_damaged_image_is_named_when_its_batch_is_read(tmp_path: Path, keep: int) -> None:
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (9, 9, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    file = tmp_path / "4.png"
    file.write_bytes(file.read_bytes()[:keep])
    data = load(f"images:{tmp_path}", SHAPE)
    with pytest.raises(DataError, match=r"4.png is damaged or no PNG or JPEG image \(.*\); fetch it again or"):
        list(data.test.inputs(2, PLAIN))


def test_without_pillow_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"Reading images needs Pillow, absent here; pip install"):
        next(iter(load(f"images:{tmp_path}").test.inputs(1, PLAIN)))
