"""Releases that a shard takes, and what patches rely on."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from multi_synapse import patches, release
from multi_synapse.patches import signatures

from .conftest import pythons
from .shard import CHECKOUT, UNTESTED, release_of


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        ("1.157.0", True),
        ("1.160.1", True),
        ("1.163.9", True),
        ("1.163.2rc1", False),
        ("1.164.0", False),
        ("1.164.0rc1", False),
        ("1.156.0", False),
        ("1.150.0", False),
        ("2.0.0", False),
    ],
)
def test_a_release_that_was_never_tested_is_refused(version: str, taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "TESTED", ("1.157.2", "1.163.2"))
    monkeypatch.setattr(release, "installed_release", lambda: version)
    if taken:
        assert release.check_release() is None
    else:
        with pytest.raises(release.UnsupportedRelease, match=f"{version} is not supported.*allowUntestedReleases"):
            release.check_release(["1.162.9"])
        assert "NEVER TESTED" in str(release.check_release([version]))


def test_a_release_that_cannot_work_is_refused_whatever_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "installed_release", lambda: "1.99.0")
    with pytest.raises(release.UnsupportedRelease, match="the oldest release that can is"):
        release.check_release(["1.99.0"])


def test_a_patch_is_not_applied_to_a_release_that_it_was_not_tested_with(monkeypatch: pytest.MonkeyPatch) -> None:
    applied: list[str] = []
    patch = patches.Patch("new", "for a test", lambda: applied.append("new"), releases=("1.170.0", "1.171.0"))
    monkeypatch.setitem(patches._BY_NAME, "new", patch)
    with pytest.raises(release.UnsupportedRelease, match=r"the patch new was tested with Synapse 1\.170\.0 to 1\.171\.0"):
        patches.apply("new")
    monkeypatch.setattr(patches, "_allowed", frozenset({release.installed_release()}))
    patches.apply("new")
    assert applied == ["new"]


def test_a_function_with_other_parameters_is_noticed() -> None:
    with pytest.raises(signatures.ChangedUpstream, match=r"relies on json:dumps\(obj\), which is json:dumps\(obj, skipkeys"):
        signatures.check("a", {"json:dumps": "obj"})
    with pytest.raises(signatures.ChangedUpstream, match="relies on json:missing, which this release does not have"):
        signatures.check("a", {"json:missing": ""})


@pytest.mark.smoke
def test_every_release_has_what_each_patch_relies_on(python: Path) -> None:
    # Before any of them is applied; and afterwards, as one may change what another one looks at.
    look = "for patch in patches.PATCHES: patches.signatures.check(patch.name, patch.relies_on)\n"
    program = (
        f"from multi_synapse import patches\npatches.allow({UNTESTED!r})\n{look}patches.apply_all()\npatches.s3.ensure_applied()\n{look}"
    )
    ended = subprocess.run([python, "-c", program], check=False, capture_output=True, text=True, env={"PYTHONPATH": str(CHECKOUT)})
    assert ended.returncode == 0, ended.stderr


def test_each_function_that_changes_synapse_is_in_the_list() -> None:
    # Every function of patches/ that replaces something, itself or by what it calls, is one of the list's.
    listed = {patch.apply.__name__ for patch in patches.PATCHES}
    helpers = {"_never_keep_half_a_file", "screen_s3"}
    for file in sorted((CHECKOUT / "multi_synapse" / "patches").glob("*.py")):
        functions = [node for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)]
        assert {function.name for function in functions if _replaces(function)} - helpers <= listed, file.name


def _replaces(function: ast.FunctionDef) -> bool:
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    return any(isinstance(call.func, ast.Name) and call.func.id == "replace" for call in calls)


def test_the_list_has_one_of_each_name() -> None:
    assert len({patch.name for patch in patches.PATCHES}) == len(patches.PATCHES)


@pytest.mark.skipif(len(pythons()) < 2 or bool(UNTESTED), reason="MULTI_SYNAPSE_PYTHON does not name the tested releases")
def test_the_tests_are_run_with_the_releases_that_are_said_to_be_tested() -> None:
    assert {release_of(python) for python in pythons()} == set(release.TESTED)
