"""From a plan to files: batch by batch, without what exists, past inputs that are not valid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial

from PIL.Image import Image

from latentdiff.bulk import processes
from latentdiff.bulk.engines import perform
from latentdiff.bulk.shards import Shard, Tell, Told, split
from latentdiff.cli.batch.array_file import ArrayFile, Placed
from latentdiff.cli.batch.command import Arguments, ImageCommand
from latentdiff.cli.batch.plan import BatchPlan, Item, Job
from latentdiff.cli.batch.sampler import Sampler, shapes
from latentdiff.errors import InputError, LatentDiffError, TooLargeError
from latentdiff.io.generated import read_parameters, write_image
from latentdiff.io.staging import recover_all
from latentdiff.viz.grid import image_grid

Inputs = dict[Job, Arguments]
FINGERPRINT = "fingerprint"  # the parameter by which an image of other options is told


class Runner:
    """Makes and writes the images of a plan, this process's share of them.

    A batch is a shard, which is computed as a whole even where a part of it is there already, since an image may depend
    on its batch by rounding: files are the same after an interruption, and of several processes.

    Args:
        command: What is made, with its options.
        plan: Of the command.
        complain: Prints an error of one input, after which the others are made.
    """

    def __init__(self, command: ImageCommand, plan: BatchPlan, complain: Callable[[str], None]) -> None:
        self.command, self.plan, self.complain = command, plan, complain
        self.array = None if plan.array is None else ArrayFile(plan.array, len(plan.jobs), command.asked(plan))
        self.places = {job: place for place, job in enumerate(plan.jobs)} if self.array else {}
        self.sampler: Sampler | None = None
        self.left = 1  # batches to be made by this process
        self.failed: set[Item] = set()
        self.cells: list[Image] = []

    def run(self, say: Callable[[str], None]) -> None:
        """Do it; `say` hears a line for each file written, and how many were kept.

        Raises:
            InputError: If an option or the only input is not valid, or images of other options are there; at the end,
                if some inputs were not valid.
        """
        bulk = self.command.bulk
        if self.array is not None and bulk.engine == "ray":
            raise InputError(f"--output is {self.plan.array}, which --engine ray doesn't fill; give a folder")
        shards = self.shards() if bulk.engine == "ray" else processes.share(self.shards())
        jobs = [job for shard in shards for job in self._jobs(shard)]
        for folder in {job.path.parent for job in jobs if job.path is not None}:
            with suppress(OSError):  # where it matters, the write that fails will say so
                recover_all(folder)
        for job in jobs:
            self._check_kept(job)
        kept, made = sum(not self._is_wanted(job) for job in jobs), 0

        def tell(told: Told) -> None:
            nonlocal made
            made += told.images
            if told.line:
                say(told.line)

        perform(self, partial(Runner, self.command, self.plan, _unheard), tell, bulk.engine, bulk.workers or 0)
        if self.plan.grid is not None:
            say(self._write_grid())
        if kept:
            say(f"{self.plan.folder or self.plan.array}: {made} made, {kept} existed already")
        processes.wait_for_others()
        if self.array is not None and processes.rank() == 0:
            say(self._finish_array(self.array))
        if self.failed:
            raise InputError(f"{len(self.failed)} of {len({job.item for job in jobs})} files failed")

    def shards(self) -> list[Shard]:
        """The batches: an image may depend on its batch by rounding."""
        return split(len(self.plan.jobs), self.command.sampling.batch_size)

    def is_done(self, shard: Shard) -> bool:
        """Whether all images of a batch are there."""
        return not any(self._is_wanted(job) for job in self._jobs(shard))

    def do(self, shards: Sequence[Shard], tell: Tell) -> None:
        """Make the images of some batches that aren't there."""
        self.left = max(1, len(shards))
        for shard in shards:
            for told in self._batch(self._jobs(shard)):
                tell(told)

    def _jobs(self, shard: Shard) -> Sequence[Job]:
        return self.plan.jobs[shard.items.start : shard.items.stop]

    def _batch(self, jobs: Sequence[Job]) -> Iterator[Told]:
        wanted = {job for job in jobs if self._is_wanted(job)}
        inputs: Inputs = {job: {} for job in jobs} if wanted else {}
        inputs = self._each(inputs, lambda job, _: self._read(job))
        if wanted & inputs.keys():
            sampler = self._loaded()
            inputs = self._each(inputs, lambda job, given: self.command.fit(sampler.pipeline, job, given))
            for shape in dict.fromkeys(map(shapes, inputs.values())):
                group = {job: given for job, given in inputs.items() if shapes(given) == shape}
                if wanted & group.keys():
                    yield from self._write(sampler, group, wanted)

    def _is_wanted(self, job: Job) -> bool:
        if self.array is not None:
            return not self.array.has(self.places[job])
        return job.path is None or self.command.output.overwrite or not job.path.exists()

    def _check_kept(self, job: Job) -> None:
        """Refuse to count an image of other options as made. Files that are none of ours are a user's, and kept."""
        if job.path is None or self._is_wanted(job):
            return
        try:
            made = (read_parameters(job.path) or {}).get(FINGERPRINT)
        except InputError:
            return
        if made is not None and made != self.command.fingerprint(job):
            raise InputError(
                f"{job.path} was made of another model, input or options; give those, choose another --output, or "
                "replace what is there with --overwrite"
            )

    def _read(self, job: Job) -> Arguments:
        if isinstance(job.item.source, InputError):
            raise job.item.source
        return self.command.read(job)

    def _loaded(self) -> Sampler:
        """The model, loaded when it is first needed: not for inputs of which none is valid, nor if all is made."""
        if self.sampler is None:
            self.sampler = Sampler(self.command, self.left)
        return self.sampler

    def _each(self, inputs: Inputs, function: Callable[[Job, Arguments], Arguments]) -> Inputs:
        """The function's results, without those jobs whose input is not valid."""
        results = {}
        for job, given in inputs.items():
            try:
                results[job] = function(job, given)
            except LatentDiffError as error:
                self._fail(job, error)
        return results

    def _fail(self, job: Job, error: LatentDiffError) -> None:
        """Report an input file that is not valid, once; raise the error if there is nothing else to go on with."""
        if job.item.path is None or len(self.plan.items) == 1:
            raise error
        if job.item not in self.failed:
            self.complain(str(error) if job.item.label in str(error) else f"{job.item.label}: {error}")
        self.failed.add(job.item)

    def _write(self, sampler: Sampler, group: Inputs, wanted: set[Job]) -> Iterator[Told]:
        try:
            images = sampler.images(list(group), list(group.values()))
        except TooLargeError as error:
            for job in group:
                self._fail(job, error)
            return
        if self.array is not None:
            made = [(job, image) for job, image in zip(group, images, strict=True) if job in wanted]
            self.array.put([Placed(self.places[job], image, self.command.class_number(job)) for job, image in made])
            yield Told(len(made))
            return
        for job, image in zip(group, images, strict=True):
            if job.path is None:
                self.cells.append(image)
            elif job in wanted:
                parameters = sampler.parameters(image, self.command.record(job), job.seed)
                if self.plan.folder is not None:  # where the next run meets it
                    parameters[FINGERPRINT] = self.command.fingerprint(job)
                write_image(self.command.finish(job, image), job.path, parameters)
                yield Told(1, f"{job.path}\tseed {job.seed}")

    def _finish_array(self, array: ArrayFile) -> str:
        if array.finish():
            return f"{array.path}\tseed {self.plan.seed_text}"
        return f"{array.folder}: some images are missing; run the same command again when all processes have ended"

    def _write_grid(self) -> str:
        plan, sampler = self.plan, self._loaded()
        assert plan.grid is not None
        records = [self.command.record(job) for job in plan.jobs[:: len(plan.seeds)]]
        record = records[0]
        if len(records) > 1:
            record = {name: [values[name] for values in records] for name in record}
        parameters = sampler.parameters(self.cells[0], record, plan.seed_text)
        write_image(image_grid(self.cells, columns=len(plan.seeds)), plan.grid, {**parameters, "grid": True})
        return f"{plan.grid}\tseed {plan.seed_text}"


def _unheard(fault: str) -> None:
    """What an actor of Ray complains to: it makes images of no input files, so its errors are all raised."""
