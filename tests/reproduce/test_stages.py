"""Tables by layer and stage, and by part: means over seeds, in % of four bytes a weight."""

from fewbits.reproduce.stages import by_layer, by_part


def measured(scale: float) -> dict:
    layers = {"1.weight": {"weights": 1000, "density": 0.1 * scale, "pruned": 400 * scale, "shared": 200 * scale,
                           "coded": 100 * scale, "entropy": 90 * scale},
              "3.weight": {"weights": 250, "density": 0.2, "pruned": 300, "shared": 100, "coded": 50, "entropy": 40}}
    return {"settings": {"network": "lenet_300_100"}, "layers": layers, "bytes": 300 * scale,
            "parts": {"codes": 200 * scale} | ({"fillers": 100} if scale == 1 else {"gaps": 500}),
            "times_smaller_pruned": 5 / scale, "times_smaller_shared": 10 / scale, "times_smaller": 20 / scale}


def test_by_layer() -> None:
    heading, first, second, whole = by_layer([measured(1), measured(3)])
    assert heading[0] == "layer"
    assert first == ("1.weight", "1000", "20.0 (8)", "20.00", "10.00 (3.1)", "5.00 (2.32)", "4.50")
    assert second == ("3.weight", "250", "20.0 (9)", "30.00", "10.00 (3.8)", "5.00 (3.04)", "4.00")
    assert whole == ("the whole file", "1250", "20.0 (8)", "40.00", "20.00 (3.1)", "10.00 (2.49)", "")


def test_by_part() -> None:
    assert by_part([measured(1), measured(3)])[1:] == [
        ("codes", "400", "66.7"), ("fillers", "50", "8.3"), ("gaps", "250", "41.7")]
