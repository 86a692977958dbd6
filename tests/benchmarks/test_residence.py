"""The residences' memory is measured in processes of their own, on disk alone where a set is large."""

import json
import subprocess

import pytest
import residence


@pytest.mark.parametrize("most, places", [(4000, ["empty", "device", "host", "disk"]), (1000, ["empty", "disk"])])
def test_sets_too_large_for_memory_are_measured_on_disk_alone(tmp_path, monkeypatch, most, places):
    def run(command, **_):
        found = {"peak_mib": 500.0 + len(asked), "load_seconds": 1.0, "first_update_seconds": 2.0, "sha256": "0" * 64}
        asked.append(command[-2])
        return subprocess.CompletedProcess(command, 0, f"a warning\nRESULT {json.dumps(found)}\n", "")

    asked = []
    monkeypatch.setattr(residence, "machine", dict)  # it starts processes too
    monkeypatch.setattr(residence.subprocess, "run", run)
    config = residence.Config(tmp_path, (2000,), episode=1000, networks=(), most_in_memory=most)
    rows = residence.main(config)["rows"]
    assert [row["residence"] for row in rows] == places
    assert [row["above_empty_mib"] for row in rows] == list(map(float, range(len(places))))
    assert [row["transitions"] for row in rows] == [1000] + [2000] * (len(places) - 1)
    assert asked == [place.replace("empty", "device") for place in places]


@pytest.mark.parametrize(
    "other, words",
    [
        ({"observation_size": 3}, "made-up-40 has other sizes than the options; remove it, or give another --folder"),
        ({"episode": 10}, "made-up-40 has other sizes"),
        ({"transitions": (50,)}, r"transitions are \(50,\) and episode 20; give one or more multiples of it"),
        ({"networks": ("2",)}, r"networks has \['2'\]; give layers x units, such as 2x256"),
    ],
)
def test_a_set_of_other_sizes_is_not_measured_in_place_of_the_one_asked_for(tmp_path, other, words):
    sizes = {"transitions": (40,), "episode": 20}
    made = residence.made_up(residence.Config(tmp_path, **sizes), 40)
    assert residence.made_up(residence.Config(tmp_path, **sizes), 40) == made
    with pytest.raises(ValueError, match=words):
        residence.made_up(residence.Config(tmp_path, **sizes | other), 40)
