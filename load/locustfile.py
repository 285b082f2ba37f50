"""Load for a llama-server with or without ATLAS, by profile; docs/load-testing.md.

    locust -f load/locustfile.py --headless --profile mix --users 8 --run-time 60s --host http://127.0.0.1:8080

Locust ends with status 1 when anything failed or nothing was asked, with 2 when the profile cannot run.
"""

import json
import logging
import sys
from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import Any, NoReturn

import httpx
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from load.profiles import MIX, USERS
from load.profiles.user import LlamaUser
from load.summary import keep_precision, render, summarize

# Locust takes the users that it finds in the file.
globals().update({user.__name__: user for user in USERS.values()})

# It writes a line for each request.
logging.getLogger("httpx").setLevel(logging.WARNING)

CANNOT_RUN = 2
CONNECT_TIMEOUT_S = 10.0


def add_options(parser: LocustArgumentParser) -> None:
    """Options of these profiles; --profile is Locust's own."""
    group = parser.add_argument_group("llama-server")
    group.add_argument("--seed", default="1", help="decides all prompts and their order (default 1)")
    group.add_argument(
        "--think-time",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="mean time from an answer to the same user's next request (default 1)",
    )
    group.add_argument("--api-key", env_var="ATLAS_LOAD_API_KEY", default="", help="key of the server")
    group.add_argument("--summary", type=Path, metavar="FILE", help="write the summary as JSON")


def choose_users(environment: Environment, **_: Any) -> None:
    """Find out what the server is, and keep the users of the profile that it can serve."""
    profile = environment.profile or MIX
    chosen = USERS if profile == MIX else {name: user for name, user in USERS.items() if name == profile}
    if not chosen:
        _give_up(f"no profile '{profile}'; there are {', '.join([*USERS, MIX])}")
    LlamaUser.atlas = _status(environment.host, _options(environment).api_key)
    able = []
    for name, user in chosen.items():
        if obstacle := user.obstacle():
            if profile != MIX:
                _give_up(f"the profile '{name}' cannot run: {obstacle}")
            print(f"load: without the users of '{name}': {obstacle}", flush=True)
        else:
            able.append(user)
    environment.user_classes = able  # type: ignore[assignment]
    environment.profile = profile
    keep_precision()


def report(environment: Environment, **_: Any) -> None:
    """Print the summary; a run that asked nothing has failed."""
    if environment.stats.total.num_requests == 0:
        print("load: no request ended; run for longer", file=sys.stderr)
        environment.process_exit_code = 1
    options = _options(environment)
    runner = environment.runner
    assert runner is not None
    counts = runner.final_user_classes_count or runner.user_classes_count
    summary = {
        "profile": environment.profile,
        "users": options.num_users,
        "users_by_profile": {name: counts.get(user.__name__, 0) for name, user in USERS.items()},
        "seed": options.seed,
        "server": "stock" if LlamaUser.atlas is None else "ATLAS",
        **summarize(environment.stats),
    }
    print(render(summary), flush=True)
    if options.summary:
        options.summary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def _options(environment: Environment) -> Namespace:
    options = environment.parsed_options
    assert isinstance(options, Namespace)
    return options


def _status(host: str | None, key: str) -> dict[str, Any] | None:
    if not host:
        _give_up("no server; name one: --host http://127.0.0.1:8080")
    try:
        answer = httpx.get(
            f"{host.rstrip('/')}/v1/atlas/status",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=CONNECT_TIMEOUT_S,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        _give_up(f"no answer from {host}: {error}")
    if answer.status_code == 404:
        return None
    if answer.status_code != 200:
        _give_up(f"{host} answers {answer.status_code} to GET /v1/atlas/status: {answer.text}")
    data: dict[str, Any] = answer.json()["data"]
    return data


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ArgumentTypeError(f"'{text}' is no number of seconds") from None
    if not 0 <= seconds <= 3600:
        raise ArgumentTypeError(f"'{text}' is not between 0 and 3600 seconds")
    return seconds


def _give_up(problem: str) -> NoReturn:
    print(f"load: {problem}", file=sys.stderr, flush=True)
    sys.exit(CANNOT_RUN)


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(choose_users)
events.quitting.add_listener(report)
