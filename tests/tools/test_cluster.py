"""Clusters: what TF_CONFIG and SLURM say, as launchers and clouds write them."""

import json

import pytest

from kvision.errors import UserError
from kvision_tools.cluster import Cluster, find_cluster
from kvision_tools.strategy import make_strategy

ALONE = Cluster()
TWO = Cluster(("a:1", "b:2"), 1)
CHIEF, FIRST = {"type": "chief", "index": 0}, {"type": "worker", "index": 0}
VERTEX = {  # https://cloud.google.com/vertex-ai/docs/training/distributed-training
    "cluster": {"chief": ["cmle-workerpool0-x-0:2222"], "worker": ["cmle-workerpool1-x-0:2222"]},
    "task": {"type": "worker", "index": 0, "trial": "1"}, "job": "{}", "environment": "cloud",
}  # fmt: skip
KUBEFLOW = {  # https://www.kubeflow.org/docs/components/trainer/legacy-v1/user-guides/tensorflow
    "cluster": {"chief": ["j-chief-0.svc:2222"], "worker": ["j-worker-0.svc:2222", "j-worker-1.svc:2222"]},
    "task": CHIEF, "environment": "cloud",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS", "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def job(workers, **task):
    return {"cluster": {"worker": workers}, "task": task}


@pytest.mark.parametrize(("config", "expected"), [
    ("", ALONE), ("{}", ALONE), (" { } ", ALONE), ({"cluster": {}}, ALONE), ({"environment": "cloud"}, ALONE),
    ({"task": {"type": "worker", "index": 0}}, ALONE),
    ({"cluster": {}, "task": {"type": "chief", "index": "0"}}, ALONE),
    (job(["a:1"], type="worker", index=0), ALONE),
    (job(["a:1"]), ALONE), ({"cluster": {"worker": ["a:1"]}}, ALONE),
    ({"cluster": {"chief": ["a:1"]}, "task": CHIEF}, ALONE),
    ({"cluster": {"chief": ["a:1"], "worker": [], "ps": []}, "task": CHIEF}, ALONE),
    (job(["a:1", "b:2"], type="worker", index=1), TWO),
    (job(["a:1", "b:2"], type="worker", index="1"), TWO),
    (job(["[::1]:2", "[fe80::1%eth0]:2"], type="worker", index=0), Cluster(("[::1]:2", "[fe80::1%eth0]:2"))),
    (VERTEX, Cluster((*VERTEX["cluster"]["chief"], *VERTEX["cluster"]["worker"]), 1)),
    (KUBEFLOW, Cluster((*KUBEFLOW["cluster"]["chief"], *KUBEFLOW["cluster"]["worker"]), 0)),
    ({"cluster": {"worker": ["a:1"], "chief": ["c:3"], "evaluator": ["e:4"]}, "task": CHIEF},
     Cluster(("c:3", "a:1"))),
])  # fmt: skip
def test_tf_config(monkeypatch, config, expected):
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    assert find_cluster("auto") == expected
    assert find_cluster("one") == ALONE


@pytest.mark.parametrize(("config", "message"), [
    *((wrong, "TF_CONFIG must be")
      for wrong in ("{", "[]", "3", "null", "[" * 100_000, {"cluster": []}, {"task": 1})),
    (job(["a:1", "b:2"]), "must say which of its 2 workers"),
    (job(["a:1", "b:2"], index=0), "must say which of its 2 workers"),
    (job(["a:1", "b:2"], type="worker"), "`index` of TF_CONFIG's task must be an integer; got None"),
    (job(["a:1", "b:2"], type="worker", index=1.0), "must be an integer; got 1.0"),
    (job(["a:1", "b:2"], type="worker", index=True), "must be an integer; got True"),
    (job(["a:1", "b:2"], type="worker", index="one"), "must be an integer; got 'one'"),
    (job(["a:1", "b:2"], type="worker", index=2), "must count the 2 addresses of 'worker' from 0; got 2"),
    (job(["a:1", "b:2"], type="worker", index=-1), "of 'worker' from 0; got -1"),
    (job(["a:1", "b:2"], type="worker", index="-1"), "of 'worker' from 0; got -1"),
    (job([], type="worker", index=0), "a cluster without the address of a worker: {'worker'"),
    (job(["a:1"], type="worker", index=1), "must count the 1 address of 'worker' from 0; got 1"),
    (job(["a:1", "b:2"], type="chief", index=0), "must count the 0 addresses of 'chief' from 0; got 0"),
    ({"task": {"type": "worker", "index": 1}}, "has no addresses, so its only worker has index 0; got 1"),
    (job(["a:1", "b:2"], type="evaluator", index=0), "'evaluator'; the workers of kvision-train evaluate"),
    ({"task": {"type": "evaluator", "index": 0}}, "'evaluator'; the workers of kvision-train evaluate"),
    (job(["a:1", "b:2"], type="ps", index=0), "'ps'; kvision-train has no parameter servers"),
    ({"cluster": {"worker": ["a:1"], "ps": ["p:2"]}, "task": FIRST}, "no parameter servers"),
    (job(["a:1", "b:2"], type="master", index=0), "TensorFlow 1's name: call it 'chief'"),
    ({"cluster": {"master": ["m:1"], "worker": ["a:1"]}, "task": FIRST}, "call it 'chief'"),
    ({"task": {"type": "master", "index": 0}}, "call it 'chief'"),
    ({"cluster": {"workers": ["a:1", "b:2"]}}, "unknown job 'workers'. Valid names: chief, worker"),
    (job(["a:1", "b:2"], type="Worker", index=0), "unknown job 'Worker'"),
    (job(["a:1", "b:2"], type=["worker"], index=0), "unknown job \\['worker'\\]"),
    (job(["a:1", "b:2"], type=None, index=0), "unknown job None"),
    ({"sparseCluster": {"worker": {"0": "a:1"}}}, "'sparseCluster'"),
    ({"cluster": {"chief": ["a:1", "b:2"]}, "task": CHIEF}, "2 chiefs; one at most"),
    (job(["a:1", "A:1"], type="worker", index=0), "lists an address twice"),
    (job("a:1", type="worker", index=0), "must list the addresses of 'worker'; got 'a:1'"),
    (job({"0": "a:1"}, type="worker", index=0), "must list the addresses of 'worker'"),
    *((job(["a:1", wrong], type="worker", index=0), "must be host:port, or \\[host\\]:port for IPv6; got")
      for wrong in ("host", "", "::1", "[::1]", "::1:2222", "b:0", "b:65536", "b:-1", "b:x", "b:2\n", " b:2",
                    "b :2", "bü:2", "b:٢", "grpc://b:2", 5, None, ["b:2"], "\x1b[31mb:2")),
])  # fmt: skip
def test_a_tf_config_that_cannot_be_followed_is_one_sentence(monkeypatch, config, message):
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(UserError, match=message) as raised:
        find_cluster("auto")
    assert len(str(raised.value)) < 600
    assert str(raised.value).isprintable()


def test_no_cluster(monkeypatch):
    assert find_cluster("auto") == ALONE
    for text in (None, "", "{}"):
        if text is not None:
            monkeypatch.setenv("TF_CONFIG", text)
        with pytest.raises(UserError, match="needs a cluster: TF_CONFIG, a SLURM step"):
            find_cluster("multiworker")
    monkeypatch.setenv("TF_CONFIG", "not read")
    assert make_strategy("mirrored", find_cluster("mirrored")).num_replicas_in_sync == 1


def slurm(monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))


def test_slurm(monkeypatch):
    step = {"STEP_NUM_TASKS": 3, "PROCID": 2, "STEP_NODELIST": "n[07-08]", "STEP_TASKS_PER_NODE": "2,1"}
    slurm(monkeypatch, **step)
    assert find_cluster("auto") == Cluster(("n07:8888", "n07:8889", "n08:8888"), 2)
    monkeypatch.setenv("TF_CONFIG", "")
    assert find_cluster("auto") == Cluster(("n07:8888", "n07:8889", "n08:8888"), 2)
    slurm(monkeypatch, STEP_NODELIST="n[9-10]", PROCID=0)  # tasks are counted in this order
    assert find_cluster("auto") == Cluster(("n9:8888", "n9:8889", "n10:8888"), 0)
    monkeypatch.setenv("SLURMD_NODENAME", "n10")
    with pytest.raises(UserError, match="task 0 runs on 'n10'; 'n9' was expected: srun --distribution=block"):
        find_cluster("auto")
    slurm(monkeypatch, STEP_NUM_TASKS=1, PROCID=0, STEP_NODELIST="n1", STEP_TASKS_PER_NODE="1")
    assert find_cluster("auto") == ALONE
    for wrong in ({"STEP_NUM_TASKS": "many"}, {"STEP_NUM_TASKS": 4}, {"STEP_NUM_TASKS": 3, "PROCID": 7}):
        slurm(monkeypatch, **step | wrong)
        with pytest.raises(UserError, match="The environment of the SLURM step cannot be followed"):
            find_cluster("auto")
