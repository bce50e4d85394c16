import pytest

from netsuke.core.budget import Budget
from netsuke.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "ratio", "count"),
    [("0.25x", 0.25, None), (".5x", 0.5, None), (0.3, 0.3, None), ("6.3MB", None, 6_300_000), ("2 KiB", None, 2048)],
)
def test_size(text, ratio, count):
    budget = Budget(size=text)
    assert (budget.size_ratio, budget.size_bytes) == (ratio, count)


@pytest.mark.parametrize("drop", [{"top1": 0.01}, "top1:0.01", "top1:1%", " top1 : 1% "])
def test_drop(drop):
    assert Budget(drop=drop).drop == {"top1": 0.01}


def test_two_drops():
    assert Budget(drop="top1:1%,psnr:0.02").drop == {"top1": 0.01, "psnr": 0.02}


@pytest.mark.parametrize(("text", "seconds"), [("20m", 1200), ("90s", 90), ("1h30m", 5400), (7, 7), ("0.5h", 1800)])
def test_time(text, seconds):
    assert Budget(time=text).seconds == seconds


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": "25%"},
        {"size": "4x"},
        {"size": "0x"},
        {"size": "0.25"},
        {"size": True},
        {"drop": "top1"},
        {"drop": "top1:5"},
        {"drop": "top1:1%,top1:2%"},
        {"drop": {"top1": -0.1}},
        {"drop": {"top1": "1%"}},
        {"drop": ""},
        {"time": "20"},
        {"time": "m"},
        {"time": ""},
        {"time": 0},
        {"time": "5m20"},
    ],
)
def test_strict(arguments):
    with pytest.raises(UsageError):
        Budget(**arguments)


def test_all_problems_are_listed():
    with pytest.raises(UsageError) as caught:
        Budget(size="big", drop="top1:7", time="soon")
    assert len(caught.value.problems) == 3


def test_text():
    assert str(Budget()) == "no limits"
    assert str(Budget(size="0.25x", drop="top1:1%", time="2m")) == "size 0.25x, drop top1:0.01, time 120s"
