from __future__ import annotations

import re
import socket
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from labelers.functions import Faults, apply
from labelers.functions_judge import JudgeParams
from labelers.functions_yaml import function_files, load_functions
from labelers.judge import Endpoint, ReplyCache, parse_answer
from tests.labelers.judge_server import judge_server

FRAME = pl.DataFrame(
    {"id": list("abcd"), "raw_content": ["fine text", "spam", None, "fine text"], "title": ["A", "B", "C", "D"]}
)


def judge(url: str, folder: Path, **fields: Any) -> JudgeParams:
    told = {
        "name": "judge", "judge": url, "model": "m", "prompt": "Rate: {text}",
        "answers": {"yes": "good", "no": "bad", "maybe": None},
        "cache": str(folder / "replies.sqlite"), "backoff": 0.001, "retries": 2, "timeout": 5,
    }  # fmt: skip
    return JudgeParams.model_validate(told | fields)


def votes(function: JudgeParams, frame: pl.DataFrame = FRAME) -> tuple[list[int], dict[str, int]]:
    faults: Faults = {}
    cast = apply([function], ("bad", "good"), frame, faults)["judge"].to_pylist()
    return cast, dict(faults.get("judge", {}))


def test_answers_become_votes_and_the_same_is_never_asked_twice(tmp_path: Path) -> None:
    with judge_server(lambda prompt, _: "Yes." if "fine" in prompt else "I would say: no") as server:
        function = judge(server.url, tmp_path, system="You judge.", max_characters=4)
        assert votes(function) == ([1, 0, -1, 1], {})
        assert sorted(a["messages"][1]["content"] for a in server.asked) == ["Rate: fine", "Rate: spam"]  # cut, and once each
        assert server.asked[0]["messages"][0] == {"role": "system", "content": "You judge."}
        assert (server.asked[0]["model"], server.asked[0]["temperature"], server.asked[0]["path"]) == (
            "m", 0.0, "/v1/chat/completions",
        )  # fmt: skip
        assert votes(function) == ([1, 0, -1, 1], {}) and len(server.asked) == 2
        votes(judge(server.url, tmp_path, system="You judge.", max_characters=4, temperature=1))
        assert len(server.asked) == 4  # another question
    assert votes(function) == ([1, 0, -1, 1], {})  # nobody listens any more, and nobody need


def test_other_answers_to_the_same_replies_ask_nothing_again(tmp_path: Path) -> None:
    with judge_server(lambda *_: "Reasoning: no doubt.\nScore: 4") as server:
        first = judge(server.url, tmp_path, answers={"4": "good"}, parse=r"Score: (\d)")
        assert votes(first) == ([1, 1, -1, 1], {})
        second = judge(server.url, tmp_path, answers={"4": "bad"}, parse=r"Score: (\d)")
        assert votes(second) == ([0, 0, -1, 0], {}) and len(server.asked) == 2


def test_failures_are_repeated_then_counted_and_never_cached(tmp_path: Path) -> None:
    def reply(prompt: str, time: int) -> Any:
        if "0" in prompt:
            return "yes" if time > 1 else (503, "", {})  # recovers
        if "1" in prompt:
            return (429, "", {"Retry-After": "0"}) if time < 3 else "no"
        if "2" in prompt:
            return (500, "", {})
        if "3" in prompt:
            return (400, {"error": "too long"}, {})
        if "4" in prompt:
            return (200, {"strange": 1}, {})
        return {"5": " ", "6": "yes or no?", "7": "maybe"}[prompt[-1]]

    with judge_server(reply) as server:
        frame = pl.DataFrame({"id": [str(i) for i in range(8)], "text": [str(i) for i in range(8)]})
        function = judge(server.url, tmp_path)
        reasons = {"HTTP 500": 1, "HTTP 400": 1, "reply is no chat completion": 1, "empty reply": 1, "unclear answer": 1}
        assert votes(function, frame) == ([1, 0, -1, -1, -1, -1, -1, -1], reasons)
        times = [sum(a["messages"][0]["content"] == f"Rate: {i}" for a in server.asked) for i in range(8)]
        assert times == [2, 3, 3, 1, 1, 1, 1, 1]
        before = len(server.asked)
        votes(function, frame)
        assert len(server.asked) == before + 3 + 1 + 1 + 1  # the failures again; what was read is there


def test_a_reply_that_does_not_come_in_time_is_a_timeout(tmp_path: Path) -> None:
    def slow(*_: object) -> str:
        time.sleep(0.3)
        return "yes"

    with judge_server(slow) as server:
        cast, reasons = votes(judge(server.url, tmp_path, timeout=0.05, retries=0))
        assert cast == [-1] * 4 and reasons == {"timeout": 3}
        assert votes(judge(server.url, tmp_path, timeout=5))[0] == [1, 1, -1, 1]


def test_questions_are_asked_side_by_side_but_not_too_many(tmp_path: Path) -> None:
    def slow(*_: object) -> str:
        time.sleep(0.02)
        return "yes"

    with judge_server(slow) as server:
        frame = pl.DataFrame({"id": [str(i) for i in range(20)], "text": [f"{i}!" for i in range(20)]})
        assert votes(judge(server.url, tmp_path, concurrency=4), frame)[0] == [1] * 20
        assert 1 < server.most_busy <= 4


@pytest.mark.parametrize(("status", "told"), [(401, "refuses the key"), (404, "knows no such path or model")])
def test_what_no_repetition_mends_stops_at_once(tmp_path: Path, status: int, told: str) -> None:
    with judge_server(lambda *_: (status, {"error": "who?"}, {})) as server:
        with pytest.raises(ValueError, match=f"labelling function judge: .*{told} .HTTP {status}, model m.: .*who"):
            votes(judge(server.url, tmp_path, concurrency=1), pl.DataFrame({"id": list("abcdefgh"), "text": list("abcdefgh")}))
        assert len(server.asked) <= 3  # one, and those under way


def test_no_server_is_an_error_that_says_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    with pytest.raises(ValueError, match=re.escape(f"nobody answers at {url}: is the server of m running?")):
        votes(judge(url, tmp_path))


def test_the_key_comes_from_the_environment_and_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with judge_server(lambda *_: "yes") as server:
        function = judge(server.url, tmp_path, key_variable="JUDGE_KEY")
        with pytest.raises(ValueError, match="the environment variable JUDGE_KEY"):
            votes(function)
        monkeypatch.setenv("JUDGE_KEY", "secret")
        votes(function)
        assert server.headers[0]["Authorization"] == "Bearer secret"
    assert "secret" not in repr(Endpoint(server.url, "m", "secret"))


def test_a_prompt_file_belongs_to_the_fingerprint_and_names_columns(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text('{title}: {text}\nAnswer as {"rating": yes}')
    with judge_server(lambda *_: '{"rating": yes}') as server:
        told = judge(server.url, tmp_path, prompt=None, prompt_file=str(path))
        assert function_files([told]) == {f"prompt:{path}": str(path)}
        (function,) = load_functions([told], {f"prompt:{path}": path})
        assert votes(function)[0] == [1, 1, -1, 1]  # type: ignore[arg-type]
        assert 'D: fine text\nAnswer as {"rating": yes}' in {a["messages"][0]["content"] for a in server.asked}
    with pytest.raises(ValueError, match=r"the prompt: there is no column titel .did you mean title"):
        votes(judge(server.url, tmp_path, prompt="{titel} {text}"))


@pytest.mark.parametrize(
    ("reply", "pattern", "answer"),
    [
        ("yes", None, "Yes"),
        ("**No**.", None, "no"),
        ("It is not really good", None, None),  # `no` is no word of it
        ("yes and no", None, None),
        ("no, no and no", None, "no"),
        ("not sure", None, "not sure"),
        ("Score: yes ... Score: no", r"Score: (\w+)", "no"),
        ("yes", r"Score: (\w+)", None),
        ("Score: perhaps", r"Score: (\w+)", None),
    ],
)
def test_answers_are_whole_words_in_any_case(reply: str, pattern: str | None, answer: str | None) -> None:
    assert parse_answer(reply, ["Yes", "no", "not sure"], re.compile(pattern) if pattern else None) == answer


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"prompt": None}, "either prompt or prompt_file"),
        ({"prompt": "Rate it"}, "put {text} in it"),
        ({"judge": "localhost:8000"}, "is no URL"),
        ({"answers": {}}, "at least 1"),
        ({"answers": {"yes": "good", "Yes": "bad"}}, "differ in case only"),
        ({"parse": "("}, "no regular expression"),
    ],
)
def test_a_wrong_judge_is_found_when_the_recipe_is_read(tmp_path: Path, fields: dict, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        judge("http://127.0.0.1:1/v1", tmp_path, **fields)


def test_a_file_that_is_no_cache_is_told(tmp_path: Path) -> None:
    (tmp_path / "replies.sqlite").write_text("no database" * 100)
    with pytest.raises(ValueError, match="is no cache of replies"):
        ReplyCache(tmp_path / "replies.sqlite")
