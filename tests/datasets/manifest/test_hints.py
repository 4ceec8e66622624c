import pytest

from foveate.datasets.manifest.check import count_findings, pixel_hints


@pytest.mark.parametrize(
    ("kinds", "messages"),
    [
        ({}, []),
        ({(1, "uint8"): 4}, []),
        ({(4, "uint8"): 4}, []),
        (
            {(1, "uint8"): 4, (3, "uint8"): 5},
            [
                "grey and RGB images are mixed (grey uint8: 4, RGB uint8: 5), and grey ones are taken as RGB: set "
                "model.input.colour grey to take all as grey"
            ],
        ),
        (
            {(4, "uint8"): 4, (3, "uint8"): 5},
            [
                "images with and without an alpha channel are mixed (RGB uint8: 5, RGBA uint8: 4): set "
                "model.input.colour rgb to take all as RGB"
            ],
        ),
        (
            {(2, "uint8"): 1, (3, "uint8"): 5, (12, "uint8"): 9},
            [
                "images of 2, 3 and 12 bands are mixed (2 bands uint8: 1, RGB uint8: 5, 12 bands uint8: 9): set "
                "model.input.bands to those all have, e.g. 0 1",
                "bands may differ in range (2 bands uint8: 1, RGB uint8: 5, 12 bands uint8: 9): each is normalised by "
                "its mean and deviation over the training images; set model.input.normalise none if they do not",
            ],
        ),
        (
            {(1, "uint16"): 2},
            [
                "pixels are not all of 8 bits (grey uint16: 2): each band is normalised by its mean and deviation over "
                "the training images; set model.input.normalise none where values lie between 0 and 1, or fill 16 bits"
            ],
        ),
        (
            {(1, "uint8"): 2, (1, "float32"): 1},
            [
                "pixels are not all of 8 bits (grey float32: 1, grey uint8: 2): each band is normalised by its mean "
                "and deviation over the training images; set model.input.normalise none where values lie between 0 "
                "and 1, or fill 16 bits"
            ],
        ),
        ({(1, "uint8"): 2, (1, "bool"): 1}, []),
    ],
)
def test_hints_about_pixels_name_the_setting(kinds: dict[tuple[int, str], int], messages: list[str]) -> None:
    assert [hint.message for hint in pixel_hints(kinds)] == messages


def test_a_class_that_only_tests_is_a_problem_unless_nothing_trains() -> None:
    counts = {("train", "a"): 70, ("test", "a"): 30, ("test", "b"): 30}
    ((is_problem, finding),) = count_findings(counts, {"train": 70, "test": 60})
    assert is_problem
    assert finding.message == "class 'b' has no image to train on, write some into the split train"
    assert list(count_findings({("test", "a"): 30, ("test", "b"): 1}, {"test": 31})) == []
    assert list(count_findings({("train", "a"): 70, ("", "b"): 30}, {"train": 70, "": 30})) == []


@pytest.mark.parametrize(("count", "hints"), [(4, 1), (5, 0)])
def test_a_class_of_few_images_is_a_hint(count: int, hints: int) -> None:
    found = list(count_findings({("", "a"): 70, ("", "b"): count}, {"": 70 + count}))
    assert [(is_problem, finding.message) for is_problem, finding in found] == [
        (False, "classes with fewer than 5 images are hard to learn and to test (b 4): add images")
    ] * hints


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", "split train has 1 image: too few to learn from"),
        ("validation", "split validation has 1 image: what is chosen by so few is chosen by chance"),
        ("test", "split test has 1 image: an error measured on so few says little"),
    ],
)
def test_a_split_of_few_images_is_a_hint(split: str, message: str) -> None:
    found = list(count_findings({("", "a"): 70, (split, "a"): 1}, {"": 70, split: 1}))
    assert [(is_problem, finding.message) for is_problem, finding in found] == [(False, message)]
