from __future__ import annotations

from pathlib import Path

from ..crew_time import OwnTime, WorkersTime


def told(time: WorkersTime) -> float:
    ((sample,),) = [family.samples for family in time.collect()]
    assert sample.name == "multi_synapse_workers_cpu_seconds_total"
    return sample.value


def test_what_workers_took_is_told_once_over_their_restarts_and_those_of_the_main_process(tmp_path: Path) -> None:
    # Guards against: usage that counts a worker's time twice, or falls, when one of the processes starts again.
    main = WorkersTime(tmp_path)
    assert told(main) == 0
    first, other = OwnTime(tmp_path, "client-reader-0", "1"), OwnTime(tmp_path, "event-persister-0", "1")
    first.write(2.0)
    other.write(1.0)
    assert told(main) == 3
    first.write(5.0)
    assert told(main) == 6
    # It restarts in place, where the kernel goes on counting.
    OwnTime(tmp_path, "client-reader-0", "1").write(6.0)
    assert told(main) == 7
    # Another process, whose count begins at nothing.
    restarted = OwnTime(tmp_path, "client-reader-0", "2")
    restarted.write(0.5)
    assert told(main) == 7.5
    # As the main process's own time, which begins at nothing too.
    main = WorkersTime(tmp_path)
    assert told(main) == 0
    restarted.write(1.5)
    assert told(main) == 1


def test_a_process_writes_what_it_took_itself(tmp_path: Path) -> None:
    main = WorkersTime(tmp_path)
    OwnTime(tmp_path, "pusher-0").write()
    assert told(main) > 0


def test_tells_nothing_where_a_file_is_none_or_has_no_room(tmp_path: Path) -> None:
    (tmp_path / "broken.time").write_text("{", "utf-8")
    (tmp_path / "other.time").write_text('{"process": 1}', "utf-8")
    collector = WorkersTime(tmp_path)
    own = OwnTime(tmp_path, "broken", "1")
    own.write(2.0)
    assert told(collector) == 2.0
    # A thread that looks at the fence writes it, and must not end for it.
    OwnTime(tmp_path / "gone", "a", "1").write(1.0)
