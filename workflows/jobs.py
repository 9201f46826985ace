"""A recipe as a job on a Ray cluster (Ray's Jobs API). The same recipe is the same job: submitted twice, it runs once."""

from __future__ import annotations

import hashlib
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflows.recipe import Recipe

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

RECIPE_FILE = "recipe.json"
ENDED_BADLY = ("FAILED", "STOPPED")


@dataclass(frozen=True)
class Submission:
    """A job on a cluster. `new`: this call started it, it was not there before."""

    id: str
    status: str
    new: bool


def job_id(recipe: Recipe, attempt: int) -> str:
    """The same for the same recipe; `attempt` counts up when one failed."""
    digest = hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()[:12]
    return f"menagerie-{recipe.name}-{digest}-{attempt}"


def submit(
    recipe: Recipe,
    address: str,
    until: str | None = None,
    working_dir: str | None = None,
    runtime_env: Mapping[str, Any] | None = None,
) -> tuple[JobSubmissionClient, Submission]:
    """Start the recipe's job on the cluster at `address` (http://head:8265), or find the one that is there.

    working_dir: a folder that the job needs besides the recipe (labelling functions in Python, say).
    ConnectionError if no Ray dashboard answers there.
    """
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
        known = {job.submission_id: str(job.status.value) for job in client.list_jobs()}
    except (ConnectionError, RuntimeError) as error:
        raise ConnectionError(
            f"no Ray dashboard answers at {address}: give the head's, such as http://127.0.0.1:8265"
        ) from error
    absolute = recipe.model_copy(update={"corpus": _absolute(recipe.corpus)})
    attempt = 1
    while known.get(job_id(absolute, attempt)) in ENDED_BADLY:
        attempt += 1
    identifier = job_id(absolute, attempt)
    if identifier in known:
        return client, Submission(identifier, known[identifier], False)
    with tempfile.TemporaryDirectory(prefix="menagerie-job-") as folder:
        environment = dict(runtime_env or {})
        if working_dir is not None:
            environment |= {"working_dir": working_dir, "py_modules": [*environment.get("py_modules", [])]}
            recipe_at = Path(working_dir) / f".{identifier}.json"
        else:
            environment |= {"working_dir": folder}
            recipe_at = Path(folder) / RECIPE_FILE
        recipe_at.write_text(absolute.model_dump_json(), encoding="utf-8")
        command = ["python", "-m", "workflows.cli", "build", recipe_at.name, "--address", "auto", "--engine", "ray"]
        command += ["--until", until] if until else []
        try:
            client.submit_job(
                entrypoint=shlex.join(command),
                submission_id=identifier,
                runtime_env=environment,
                metadata={"recipe": recipe.name, "corpus": absolute.corpus},
            )
        except RuntimeError as error:
            if "already exists" not in str(error):  # somebody else was quicker: the same job all the same
                raise
        finally:
            if working_dir is not None:
                recipe_at.unlink()
    return client, Submission(identifier, str(client.get_job_status(identifier).value), True)


def follow(client: JobSubmissionClient, identifier: str) -> Iterator[str]:
    """The job's output as it comes, until it ends."""
    import asyncio

    loop = asyncio.new_event_loop()
    lines = client.tail_job_logs(identifier)
    try:
        while True:
            yield loop.run_until_complete(anext(lines))
    except StopAsyncIteration:
        return
    finally:
        loop.close()


def _absolute(corpus: str) -> str:
    return corpus if "://" in corpus else str(Path(corpus).expanduser().absolute())
