"""Stages over a server without a local tokenizer: what is kept when it dies, what it refuses, and what is written."""

import asyncio
import json

import pytest

from sampling.__main__ import main
from sampling.labelling import Consensus, Exhaustive, Rollouts
from sampling.runtime.store import kept_records
from sampling.stages.generate import generate
from sampling.stages.label import label
from stepverify.jsonl import read_records, write_records
from stepverify.readers import Reader
from stepverify.records import InputError, Judgement, Problem, Rollout, Solution, StepLabel
from stepverify.template import Template
from tests.helpers.endpoints import Endpoint, Reply, choice, engine_at, error, turn
from tests.helpers.fleet import Fleet

CHAT = Template(chat=True)


class Given(Reader):
    def __init__(self, *names):
        self.names = names

    def problems(self):
        return (Problem(id=name, problem=f"{name}?", answer="5") for name in self.names)

    def solutions(self):
        return iter(())


def answer(body):
    """Greets with the seed's final digit: an answer that is 5 for an even one."""
    said = f"so {body['seed'] % 10}\n#### {5 + body['seed'] % 2}"
    usage = {
        "prompt_tokens": 21 if body.get("continue_final_message") else 20,
        "completion_tokens": min(7, body["max_tokens"]),
    }
    return turn(said, usage=usage) if "messages" in body else choice(said, ids=None, usage=usage)


def summary(folder):
    return json.loads((folder / "manifest.json").read_text())["summary"]


def lines(folder, kind=Solution):
    return sorted((json.dumps(r.steps), r.id, getattr(r, "seed", 0)) for r in read_records(folder, kind))


def sample(url, output, *names, num_samples=4, **options):
    engine = engine_at(url, "chat", **options)
    generate(engine, Given(*names), output, num_samples=num_samples, template=CHAT)


@pytest.mark.parametrize("form", ["chat", "text"])
def test_solutions_without_a_tokenizer_hold_no_token_ids_and_count_tokens(tmp_path, form, capsys):
    endpoint = Endpoint(answer, answer)
    template = CHAT if form == "chat" else Template()
    with endpoint.listening() as url:
        generate(engine_at(url, form), Given("p"), tmp_path / "out", num_samples=2, template=template)
    solutions = list(read_records(tmp_path / "out", Solution))
    assert [(s.token_ids, s.finish, len(s.steps), s.generator) for s in solutions] == [(None, "stop", 2, "words")] * 2
    assert summary(tmp_path / "out")["tokens_this_run"] == 14
    assert "no token ids are returned: records hold none" in capsys.readouterr().err
    prompts = {json.dumps(body.get("messages") or body["prompt"]) for body in endpoint.asked}
    sent = [{"role": "user", "content": "p?"}] if form == "chat" else "Question: p?\nAnswer:\n"
    assert prompts == {json.dumps(sent)}


def test_what_a_server_served_before_it_died_is_kept(tmp_path):
    """Of the 4 + 4 solutions 5 are served; a second start asks for the 3 others, and all are those of one run."""
    died = Endpoint(lambda body: answer(body) if len(died.asked) <= 5 else Reply(raw=b""))
    died.probe = lambda body: turn() if len(died.asked) <= 5 else Reply(raw=b"")
    with died.listening() as url, pytest.raises(InputError, match=r"stopped answering: no completion for 0\.5 seconds"):
        sample(url, tmp_path / "out", "p", "q", give_up_after=0.5, max_in_flight=1)
    assert len(list(kept_records(tmp_path / "out", Solution))) == 5
    for folder in ("out", "whole"):
        endpoint = Endpoint(answer)
        with endpoint.listening() as url:
            sample(url, tmp_path / folder, "p", "q")
        assert len(endpoint.asked) == (3 if folder == "out" else 8)
    assert lines(tmp_path / "out") == lines(tmp_path / "whole")


def test_a_server_of_several_that_dies_costs_no_record_and_makes_none_twice(tmp_path, capsys, monkeypatch):
    """The middle one of three dies at its second solution, with two in work; the records are those of one server."""

    async def slow(body):
        await asyncio.sleep(0.01)
        return answer(body)

    shown = []
    monkeypatch.setattr("tqdm.tqdm.set_postfix_str", lambda self, text, refresh: shown.append(text))
    dies = Endpoint(lambda body: fleet.die(1) if len(dies.asked) == 2 else Reply(answer(body), wait=60))
    fleet, names = Fleet(Endpoint(slow), dies, Endpoint(slow)), [f"p{i}" for i in range(8)]
    with fleet.listening() as urls:
        sample(urls, tmp_path / "three", *names, max_in_flight=2, give_up_after=30.0)
    assert "2 of 3 servers" in shown[-1]
    with Endpoint(answer).listening() as url:
        sample(url, tmp_path / "one", *names)
    assert lines(tmp_path / "three") == lines(tmp_path / "one")
    assert len(lines(tmp_path / "three")) == 32
    assert summary(tmp_path / "three")["retries_this_run"] == 2
    assert "taken out, 2 of 3 servers are left" in capsys.readouterr().err


def test_all_servers_die_and_the_same_command_goes_on_with_one_of_them(tmp_path):
    """What they served is kept; other URLs are no other run."""
    done = []

    def mortal(body, i):
        done.append(body)
        return answer(body) if len(done) <= 5 else fleet.die(i)

    fleet = Fleet(*(Endpoint(lambda body, i=i: mortal(body, i)) for i in range(2)))
    with fleet.listening() as urls, pytest.raises(InputError, match=r"stopped answering: .*; last: http.*refused"):
        sample(urls, tmp_path / "out", "p", "q", give_up_after=0.5, max_in_flight=1)
    assert len(list(kept_records(tmp_path / "out", Solution))) == 5
    for folder in ("out", "whole"):
        with Endpoint(answer).listening() as url:
            sample(url, tmp_path / folder, "p", "q")
    assert lines(tmp_path / "out") == lines(tmp_path / "whole")


def test_prompts_that_are_refused_are_left_out_and_counted(tmp_path, capsys):
    """By default the run ends; with `skip` the same folder goes on. Of q nothing is written, nothing counts as incorrect."""

    def refusing(body):
        return error(400, "too long") if body["messages"][0]["content"] == "q?" else answer(body)

    with Endpoint(refusing).listening() as url:
        with pytest.raises(InputError, match=r"q#0: http.*: error 400: too long; `refused: skip` of the engine"):
            sample(url, tmp_path / "out", "p", "q")
        sample(url, tmp_path / "out", "p", "q", refused="skip")
    assert {s.problem_id for s in read_records(tmp_path / "out", Solution)} == {"p"}
    assert summary(tmp_path / "out")["refused"] == {"count": 4, "solutions": [f"q#{i}" for i in range(4)]}
    assert "the server refused 4 solutions, such as q#0: they are left out" in capsys.readouterr().out


def labelled(folder, endpoint, **options):
    steps = ["good", "long", "#### 5"]
    known = {"problem_id": "p", "problem": "p?", "answer": "5", "finish": "stop"}
    write_records(folder / "in.jsonl", [Solution(id="p#0", steps=steps, **known)])
    with endpoint.listening() as url:
        engine = engine_at(url, "chat", **options)
        label(folder / "in.jsonl", folder / "out", Rollouts(engine, Exhaustive(4), template=CHAT))
    (found,) = read_records(folder / "out", Solution)
    return found.step_labels


def test_a_refused_prefix_is_no_evidence(tmp_path, capsys):
    """The second prefix is refused: no label, no record, and no completion that counts as incorrect."""

    def refusing(body):
        return error(413, "too long") if "long" in body["messages"][-1]["content"] else answer(body)

    labels = labelled(tmp_path, Endpoint(refusing, answer), refused="skip")
    assert labels == [StepLabel(num_correct=2, num_rollouts=4), None, StepLabel(rating=1)]
    found = summary(tmp_path / "out")
    assert (found["prefixes_refused"], found["rollouts"], found["prefixes_completed"]) == (1, 4, 1)
    assert "refused to complete 1 prefixes" in capsys.readouterr().out


def test_rollouts_that_a_server_served_before_it_died_are_kept(tmp_path):
    """Of 8 completions 6 are served: those before the first missing one of their prefix are not asked for again."""
    died = Endpoint(lambda body: answer(body) if len(died.asked) <= 6 else Reply(raw=b""))
    died.probe = lambda body: answer(body) if len(died.asked) <= 6 else Reply(raw=b"")
    with pytest.raises(InputError, match="stopped answering"):
        labelled(tmp_path, died, give_up_after=0.5, max_in_flight=1)
    kept = sum(len(r.completions) for r in kept_records(tmp_path / "out" / "rollouts", Rollout))
    assert 4 <= kept <= 6
    endpoint = Endpoint(answer, answer)
    labels = labelled(tmp_path, endpoint)
    assert len(endpoint.asked) == 8 - kept
    assert labels == labelled_whole(tmp_path / "whole")


def labelled_whole(folder):
    folder.mkdir()
    return labelled(folder, Endpoint(answer, answer))


def test_a_judge_after_a_chat_server_needs_no_tokenizer(tmp_path):
    """It is asked by a turn of the user; a refused question gives no verdict, so the labels are dropped and counted."""
    refuses = []

    def judge(body):
        return (
            error(400, "no")
            if refuses
            else turn("The first incorrect step is \\boxed{-1}.", usage={"completion_tokens": 9})
        )

    for refused in (False, True):
        refuses += [1] * refused
        folder = tmp_path / str(refused)
        folder.mkdir()
        endpoint, asked = Endpoint(answer, answer), Endpoint(judge)
        with endpoint.listening() as url, asked.listening() as judge_url:
            write_records(folder / "in.jsonl", [Solution(
                id="p#0", steps=["good", "#### 5"], problem_id="p", problem="p?", answer="5", finish="stop"
            )])  # fmt: skip
            labeller = Rollouts(engine_at(url, "chat"), Exhaustive(4), template=CHAT)
            label(folder / "in.jsonl", folder / "out",
                  Consensus(labeller, engine_at(judge_url, "chat", refused="skip")))  # fmt: skip
        (body,) = asked.asked
        assert [message["role"] for message in body["messages"]] == ["user"]
        assert "good" in body["messages"][0]["content"]
        (judgement,) = read_records(folder / "out" / "judge", Judgement)
        assert (judgement.finish, judgement.tokens) == ((["refused"], 0) if refused else (["stop"], 9))
        assert summary(folder / "out").get("refused_verdicts", 0) == refused


def test_the_command_line_and_the_manifest_hold_no_secret(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SERVER_KEY", "sk-from-the-environment")
    hidden = ["sk-from-the-environment", "pass-word", "query-secret"]
    endpoint = Endpoint(answer, answer)
    with endpoint.listening() as url:
        place = url.removeprefix("http://")

        def command(base, *more):
            return ["generate", "--problems", "Synthetic", "--problems.split", "test", "--problems.num_problems", "1", "--engine", "ServerEngine",
                    "--engine.model", "m", "--engine.api", "chat", "--engine.base_url", base, "--num_samples", "1",
                    "--template", "{chat: true}", *more]  # fmt: skip

        query = f"http://{place}?token=query-secret"
        main(command(query, "--engine.headers_env", "{X-Key: SERVER_KEY}", "--output", str(tmp_path / "a")))
        main(command(f"[http://me:pass-word@{place}, 'http://127.0.0.1:1/v1']", "--output", str(tmp_path / "b")))
        failing = [("ftp://me:pass-word@h/v1", "base_url: expected"),
                   (f"[{url}, 'http://me:pass-word@{place}/nowhere']", "base_url[0]: http"), (f"http://me:pass-word@{place}/nowhere", "lists no"),
                   (f"http://me:pass-word@{place}?token=query-secret", "--engine.timeout")]  # fmt: skip
        endpoint.models = {"pass-word": "query-secret"}
        for (base, line), more in zip(failing, ([], [], [], ["--engine.timeout", "0"]), strict=True):
            with pytest.raises(SystemExit) as ended:
                main(command(base, *more, "--output", str(tmp_path / "c")))
            assert ended.value.code == 2
            said = capsys.readouterr().err
            assert line.removeprefix("--engine.") in said
            assert not [secret for secret in hidden if secret in said], said
    written = "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    assert not [secret for secret in hidden if secret in written]
    assert "X-Key: sk-from-the-environment" in endpoint.heads[0]
