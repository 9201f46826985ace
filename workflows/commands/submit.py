"""`menagerie submit`."""

from __future__ import annotations

import json
import sys

import click

from workflows.commands.build import recipe_argument, set_option


@click.command()
@recipe_argument
@click.option("--address", required=True, help="The cluster's dashboard, such as http://head:8265.")
@click.option("--until", metavar="STAGE", help="Stop after this stage.")
@click.option("--working-dir", type=click.Path(exists=True, file_okay=False), help="A folder that the job needs beside it.")
@click.option("--runtime-env", metavar="JSON", help="Ray runtime environment of the job, as JSON.")
@click.option("--no-wait", is_flag=True, help="Return when the job is queued.")
@set_option
def submit(
    recipe: str,
    address: str,
    until: str | None,
    working_dir: str | None,
    runtime_env: str | None,
    no_wait: bool,
    assignments: tuple[str, ...],
) -> None:
    """Run RECIPE as a job on a Ray cluster on which menagerie is installed.

    The same recipe is the same job: submitted again while it runs, or after it is done, it is found and not started twice;
    after a failure it starts again and goes on where it stopped.
    """
    from workflows.jobs import follow
    from workflows.jobs import submit as start
    from workflows.recipe import load_recipe

    try:
        environment = json.loads(runtime_env) if runtime_env else None
    except json.JSONDecodeError as error:
        raise ValueError(f"--runtime-env is not JSON: {error}") from error
    client, job = start(load_recipe(recipe, assignments), address, until, working_dir, environment)
    click.echo(f"{job.id}: {'submitted' if job.new else 'is there already, ' + job.status.lower()}")
    if no_wait:
        return
    for piece in follow(client, job.id):
        click.echo(piece, nl=False)
    status = str(client.get_job_status(job.id).value)
    click.echo(f"{job.id}: {status.lower()}")
    if status != "SUCCEEDED":
        sys.exit(1)
