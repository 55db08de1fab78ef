"""The HTTP door as Python programs use it: urllib, http.client, and Prometheus' own parser for /metrics.

Called with the HTTP addresses of three replicas; anything that is not as it should be ends it with an assertion."""

import http.client
import json
import sys
import urllib.error
import urllib.request

ADDRESSES = sys.argv[1:]


def ask(address, method, path, body=None, headers=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{address}{path}", data=data, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.read().decode()


def causal_session():
    """One client goes round all replicas and never sees an older value than it wrote or read."""
    metadata = None
    for turn in range(30):
        address = ADDRESSES[turn % len(ADDRESSES)]
        status, text = ask(address, "PUT", "/kvs/turn", {"value": turn, "causal-metadata": metadata})
        assert status in (200, 201), text
        metadata = json.loads(text)["causal-metadata"]
        address = ADDRESSES[(turn + 1) % len(ADDRESSES)]
        body = {"causal-metadata": metadata}
        status, text = ask(address, "GET", "/kvs/turn", body, {"Prefer": "wait=30"})
        assert (status, json.loads(text)["value"]) == (200, turn), text
        metadata = json.loads(text)["causal-metadata"]
    status, text = ask(ADDRESSES[0], "DELETE", "/kvs/turn", {"causal-metadata": metadata})
    assert status == 200, text


def one_connection():
    """Kept alive; bodies with a length, in chunks and none; unusual numbers and deep values come back."""
    connection = http.client.HTTPConnection(ADDRESSES[0], timeout=30)
    for body in ('{"value": 1e400}', '{"value": [[[[{}]]]]}', '{"value": -0.0}', '{"value": "\\ud83d\\ude00"}'):
        for chunked in (False, True):
            data = iter([body[:5].encode(), body[5:].encode()]) if chunked else body
            connection.request("PUT", "/kvs/one%20key", data, encode_chunked=chunked,
                               headers={"Transfer-Encoding": "chunked"} if chunked else {})
            answer = connection.getresponse()
            assert answer.status in (200, 201), answer.read()
            answer.read()
            socket = connection.sock
            connection.request("GET", "/kvs/one%20key", '{"causal-metadata": null}')
            answer = connection.getresponse()
            text = answer.read().decode()
            value = body[len('{"value": '):-1]
            assert f'"value":{value},' in text, text
            assert connection.sock is socket and socket is not None, "the connection is kept"
    connection.request("HEAD", "/kvs/one%20key")
    answer = connection.getresponse()
    assert answer.status == 200 and answer.read() == b"" and answer.headers["ETag"]
    connection.request("GET", "/kvs/none")
    answer = connection.getresponse()
    assert answer.status == 404 and "error" in json.loads(answer.read())
    connection.close()


def metrics():
    """Every line is read by the parser of the Prometheus project."""
    from prometheus_client.parser import text_string_to_metric_families

    with urllib.request.urlopen(f"http://{ADDRESSES[0]}/metrics", timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert len(families) == text.count("# TYPE "), "no family comes twice"
    values = {}
    for family in families.values():
        assert family.name.startswith("ftq_") and family.documentation, family
        assert family.type in ("counter", "gauge", "histogram"), family
        assert family.samples or family.name in ("ftq_drops",) or family.name.startswith("ftq_queue_"), family
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample
            assert sample.value >= 0, sample
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in values, f"{key} comes twice"
            values[key] = sample.value
        if family.type == "histogram":
            buckets = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
            assert buckets == sorted(buckets) and buckets[-1] == values[(family.name + "_count", ())] > 0, family
    for name in ("ftq_view_epoch", "ftq_view_members", "ftq_primary", "ftq_sessions", "ftq_memory_bytes",
                 "ftq_http_connections", "ftq_log_sync_seconds_sum", "ftq_clients", "ftq_queues"):
        assert (name, ()) in values, name
    assert values[("ftq_slot", (("is", "applied"),))] > 30
    assert values[("ftq_http_requests_total", (("code", "200"),))] > 20
    assert values[("ftq_http_requests_total", (("code", "404"),))] >= 1
    assert values[("ftq_requests_total", (("code", "ok"),))] > 20
    assert values[("ftq_views_total", (("step", "installed"),))] >= 1
    assert values[("ftq_datagram_clients", ())] == 1
    assert values[("ftq_datagram_requests_total", (("fate", "taken"),))] >= 2, "an opening and a push"
    assert values[("ftq_datagram_answers_total", (("fate", "sent"),))] >= 2
    assert values[("ftq_primary", ())] == 1 and values[("ftq_view_members", ())] == len(ADDRESSES)
    assert values[("ftq_queue_items", (("queue", 'a"\\b'),))] == 2, "a label with what must be escaped"
    assert ("ftq_nacks_total", (("of", "order"),)) in values and ("ftq_resends_total", (("of", "order"),)) in values


causal_session()
one_connection()
metrics()
print("ok")
