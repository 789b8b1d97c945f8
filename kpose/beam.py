"""Apache Beam: the same pipeline on this machine, on Flink, Spark or Dataflow.

It needs the extra `kpose[beam]`; nothing else in kpose imports Beam. Workers import kpose too: on a cluster their container holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kpose.errors import KposeError


@contextmanager
def beam_pipeline(options: Sequence[str] = ()) -> Iterator[Any]:
    """A Beam pipeline, which runs to its end when the block ends.

    Args:
        options: of Beam and its runner, such as `["--runner=FlinkRunner", "--flink_master=host:8081"]`; by default everything runs on
            this machine.

    Raises:
        KposeError: when Beam is not installed, an option is none of its, or the pipeline fails.
    """
    beam, pipeline_options = _import_beam()
    try:
        parsed = pipeline_options.PipelineOptions(list(options))
        known = parsed.get_all_options()
    except SystemExit as error:
        raise KposeError(f"Beam refuses the options {' '.join(options)}") from error
    unknown = parsed.get_all_options(retain_unknown_options=True).keys() - known.keys()
    if unknown:
        raise KposeError(f"Beam has no option --{min(unknown)}; the page of its runner lists those that it has")
    # What the main program defined is not sent along: all of it is in modules that workers import.
    parsed.view_as(pipeline_options.SetupOptions).save_main_session = False
    try:
        with beam.Pipeline(options=parsed) as pipeline:
            yield pipeline
    except Exception as error:
        # What went wrong on a worker comes with Beam's own words about it, or the traceback there.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        told = next((line for line in lines if "KposeError: " in line), (lines or [type(error).__name__])[-1])
        raise KposeError(f"the Beam pipeline failed: {told.rpartition('KposeError: ')[2].partition(' [while running')[0][:400]}") from error


def map_once(pipeline: Any, elements: Sequence[int], function: Callable[[int], object]) -> None:
    """Have workers call a function for each number, spread over all of them.

    Args:
        pipeline: of `beam_pipeline`.
        elements: numbers, because they travel with the pipeline's description, which Dataflow limits to 10 MB.
        function: of a module, or an object whose class is; may run more than once for a number, at the same time too, when a runner
            repeats what failed or is slow. What it returns is dropped.
    """
    beam, _ = _import_beam()
    pipeline | "numbers" >> beam.Create(list(elements)) | "spread" >> beam.Reshuffle() | "write" >> beam.Map(function)


def _import_beam() -> tuple[Any, Any]:
    try:
        import apache_beam
        from apache_beam.options import pipeline_options
    except ImportError as error:
        raise KposeError("Apache Beam is not installed; pip install 'kpose[beam]'") from error
    return apache_beam, pipeline_options
