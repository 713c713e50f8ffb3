"""``zoo report`` shows the finished runs and rankings of folders, and names everything that it leaves out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import zoo
from zoo import UsageError, ZooError
from zoo_harness.cli.main import run

from ..hub_server import Hub
from ..report_runs import backbone, write_ranking, write_run, write_runs
from ..saved_runs import edit_record


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_runs(tmp_path_factory.mktemp("runs"))


def test_the_order_and_the_place_of_the_runs_change_no_byte(runs: Path, tmp_path: Path) -> None:
    first = zoo.report(runs, out=tmp_path / "first.html")
    assert [len(row.runs) for row in first.comparison.rows] == [3, 1, 1, 1, 1, 1, 1]
    assert first.rankings == ((runs / "ranked").resolve(),)
    content = first.path.read_bytes()
    shutil.copytree(runs, tmp_path / "elsewhere")
    parts = sorted((tmp_path / "elsewhere").iterdir(), reverse=True)
    assert zoo.report([str(part) for part in parts], out=tmp_path / "second.html").path.read_bytes() == content
    again = zoo.report([zoo.open_run(runs / "vit_a"), runs / "vit_b"], out=tmp_path / "first.html")
    assert len(again.comparison.runs) == 2
    assert again.path.read_bytes() != content


def test_what_cannot_be_shown_is_named(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("unfinished", "newer", "damaged", "old_ranking", "foreign"):
        if name in ("unfinished", "newer"):
            write_run(tmp_path / name, 300)
        else:
            (tmp_path / name).mkdir()
    edit_record(tmp_path / "unfinished", lambda record: record.update(status="interrupted"))
    edit_record(tmp_path / "newer", lambda record: record.update(format="blockzoo run 2"))
    (tmp_path / "damaged" / "run.json").write_text("{")
    (tmp_path / "old_ranking" / "rank.json").write_text('{"format": "blockzoo rank 9"}')
    bad = [str(tmp_path / name) for name in ("unfinished", "newer", "damaged", "old_ranking", "foreign", "nowhere")]
    page = tmp_path / "page.html"
    assert run(["report", str(runs), str(runs / "vit_a"), *bad, "--out", str(page)]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("error: ") == 7
    assert captured.out.startswith(f"{page}: 9 runs and 1 ranking, ")
    found = zoo.report([runs, *bad], out=page)
    assert {each.code for each in found.left_out} == {
        *("run-not-finished", "record-of-another-version", "record-invalid", "ranking-invalid", "not-a-run"),
        "no-such-folder",
    }
    text = page.read_text()
    for name in bad:
        assert f"<bdi>{name}</bdi>" in text
    with pytest.raises(ZooError) as refused:
        zoo.report(bad, out=tmp_path / "none.html")
    assert (refused.value.code, refused.value.exit_code) == ("nothing-to-report", 1)
    assert refused.value.facts["left_out"] == [each.run for each in found.left_out]
    assert not (tmp_path / "none.html").exists()


def test_only_an_earlier_page_is_overwritten(
    runs: Path, tmp_path: Path, error_of: Callable[..., ZooError], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.html"
    mine.write_text("<p>blockzoo report 1")
    assert error_of("report", str(runs), "--out", str(mine)).code == "out-exists"
    assert error_of("report", str(runs), "--out", str(tmp_path)).code == "out-ending"
    assert error_of("report", str(runs), "--out", str(mine / "page.html")).code == "out-not-writable"
    for nowhere in (str(tmp_path / "nowhere"), "x" * 10_000):
        assert error_of("report", nowhere).code == "nothing-to-report"
    with pytest.raises(UsageError, match="nothing to report"):
        zoo.report([])
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs, tmp_path / "runs")
    for _turn in range(2):
        assert zoo.report().path == Path("report.html")


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    for number, folder in enumerate(("one", "two")):
        write_run(tmp_path / folder / "same", 300 + number, number, **backbone("vit_a", 9), settings={"recipe": folder})
    text = zoo.report(tmp_path, out=tmp_path / "page.html").path.read_text()
    assert "<small><bdi>one/same</bdi></small>" in text
    assert "<small><bdi>two/same</bdi></small>" in text


def test_a_repository_is_a_row_under_its_name(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("here", "there")):
        write_run(tmp_path / name, 300 + number, number, **backbone(f"vit_{name}", 9))
    files = {each: (tmp_path / "there" / each).read_bytes() for each in ("run.json", "predictions.safetensors")}
    files |= {"zoo.json": files.pop("run.json"), "config.json": b"{}", "model.safetensors": b"not read"}
    oid = hub.create("ada/pets", files).branches["main"]
    page = tmp_path / "page.html"
    assert run(["report", str(tmp_path / "here"), "ada/pets", "ada/missing", "--out", str(page)]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("error: ") == captured.err.count("error: there is no folder 'ada/missing' here") == 1
    text = page.read_text()
    assert f"<small><bdi>ada/pets (commit {oid[:12]})</bdi></small>" in text
    assert "<small><bdi>here</bdi></small>" in text
    found = zoo.report(["ada/pets", tmp_path / "here"], out=page)
    assert [(each.test, found.left_out) for each in found.comparison.differences] == [("mcnemar", ())]


def test_a_folder_of_rankings_alone_is_a_report(tmp_path: Path) -> None:
    write_ranking(tmp_path / "ranked", "a<b>")
    found = zoo.report(tmp_path, out=tmp_path / "page.html")
    assert (found.left_out, found.comparison.runs) == ((), ())
    assert "<bdi>a&lt;b&gt;</bdi>" in found.path.read_text()


def test_the_page_says_what_cannot_be_compared(tmp_path: Path) -> None:
    for number, name in enumerate(("first", "old", "other", "scaled")):
        other = {"fingerprint": "cd" * 32} if name == "other" else {}
        write_run(tmp_path / name, 300 + number, number, **backbone(name, 9), **other)
    edit_record(tmp_path / "old", lambda record: record["results"].pop("predictions"))
    scaled = {"order": 2, "metric": "cosine", "normalize": "zscore"}
    edit_record(tmp_path / "scaled", lambda record: record["settings"].update(separation=scaled))
    text = zoo.report(tmp_path, out=tmp_path / "page.html").path.read_text()
    assert "For 1 row without predictions, zoo uses the test for different images" in text
    assert "which finds fewer differences: <bdi>old (old)</bdi>." in text
    assert "SI is not comparable" in text
    for fingerprint in ("cdcdcdcd", "efefefef"):
        assert f'<option value="{int(fingerprint[0] == "e")}">CIFAR-10, test split (fingerprint {fingerprint})' in text
