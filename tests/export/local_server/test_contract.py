"""gRPC requests that the local and a real server have to answer alike."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

Code = grpc.StatusCode
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def refused(call: Any, request: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=30)
    return caught.value.code(), caught.value.details()


def arrays(response: Any) -> dict[str, Any]:
    return {name: tf.make_ndarray(tensor).tolist() for name, tensor in response.outputs.items()}


def with_examples(request: Any, messages: Any, *rows: tuple[float, ...]) -> Any:
    for row in rows:
        request.input.example_list.examples.add().MergeFromString(messages.example(*row))
    return request


def classification(signature: str = "classify", model: str = "toy") -> Any:
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    return request


def regression(signature: str = "regress") -> Any:
    request = regression_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = "toy", signature
    return request


def test_a_real_server_took_part(servers: list[str]) -> None:
    if "real" not in servers:
        pytest.skip(
            "no real TensorFlow Serving: the contract was checked against the local server only. "
            "Put tensorflow_model_server on the PATH, or set TF_SERVING_GRPC, TF_SERVING_REST and "
            "TF_SERVING_MODEL_BASE: see 'Contract tests' in docs/local_server.md"
        )


def test_predict_on_serialized_examples(target: Any, messages: Any) -> None:
    rows = [messages.example(1, 2, 3), messages.example(4, 5, 6)]
    response = target.prediction.Predict(messages.predict(examples=rows))
    assert arrays(response) == {"like": [12.0, 30.0], "share": [24.0, 60.0]}
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("toy", 2, "serving_default")


def test_predict_on_raw_tensors_of_each_encoding(target: Any, messages: Any) -> None:
    request = messages.predict("predict", x=np.float32([[1, 2, 3]]), name=["a\x00b"])
    expected = {"like": [12.0], "name": [b"a\x00b!"], "name_bytes": [b"a\x00b!"], "rows": [1]}
    assert arrays(target.prediction.Predict(request)) == expected
    x = request.inputs["x"]
    x.tensor_content = b""
    x.float_val.extend([1, 2, 3])
    assert arrays(target.prediction.Predict(request)) == expected
    del x.float_val[1:]  # the last value fills the rest
    assert arrays(target.prediction.Predict(request))["like"] == [6.0]
    del x.float_val[:]
    assert arrays(target.prediction.Predict(request))["like"] == [0.0]


def test_predict_on_an_empty_batch(target: Any, messages: Any) -> None:
    request = messages.predict("echo", values=np.zeros(0, np.float32))
    assert arrays(target.prediction.Predict(request)) == {"values": []}


def test_predict_is_allowed_on_signatures_of_other_methods(target: Any, messages: Any) -> None:
    row = [messages.example(1, 1, 1)]
    response = target.prediction.Predict(messages.predict("classify", inputs=row))
    assert arrays(response) == {"classes": [[b"like", b"share"]], "scores": [[6.0, 12.0]]}
    response = target.prediction.Predict(messages.predict("regress", inputs=row))
    assert arrays(response) == {"outputs": [6.0]}


def test_version_by_number_and_by_label(target: Any, messages: Any) -> None:
    request = messages.predict("echo", values=np.float32([1]))
    served = {}
    for asked in (1, 2, "stable", "canary"):
        request.model_spec.ClearField("version_choice")
        if isinstance(asked, int):
            request.model_spec.version.value = asked
        else:
            request.model_spec.version_label = asked
        served[asked] = target.prediction.Predict(request).model_spec.version.value
    assert served == {1: 1, 2: 2, "stable": 1, "canary": 2}


def test_output_filter(target: Any, messages: Any) -> None:
    request = messages.predict(examples=[messages.example(1, 2, 3)])
    request.output_filter.append("share")
    assert arrays(target.prediction.Predict(request)) == {"share": [24.0]}
    request.output_filter.append("share")
    code, details = refused(target.prediction.Predict, request)
    assert code == Code.INVALID_ARGUMENT and "duplicate output tensor alias: share" in details
    request.output_filter[:] = ["other"]
    code, details = refused(target.prediction.Predict, request)
    assert code == Code.INVALID_ARGUMENT and "other" in details and "{like,share}" in details


def test_which_model_is_asked_for(target: Any, messages: Any) -> None:
    request = messages.predict("echo", values=np.float32([1]))
    call = target.prediction.Predict
    request.model_spec.version.value = 7
    assert refused(call, request) == (
        Code.NOT_FOUND,
        "Servable not found for request: Specific(toy, 7)",
    )
    request.model_spec.version_label = "nightly"
    code, details = refused(call, request)
    assert code == Code.INVALID_ARGUMENT
    assert "Unrecognized servable version label: nightly" in details
    request.model_spec.ClearField("version_choice")
    request.model_spec.name = "unknown_model"
    assert refused(call, request) == (
        Code.NOT_FOUND,
        "Servable not found for request: Latest(unknown_model)",
    )
    request.model_spec.name = ""
    code, details = refused(call, request)
    assert code == Code.INVALID_ARGUMENT and "no name" in details
    request.ClearField("model_spec")
    assert refused(call, request) == (Code.INVALID_ARGUMENT, "Missing ModelSpec")


def test_predict_names_what_is_missing_and_what_is_too_much(target: Any, messages: Any) -> None:
    request = messages.predict("predict", x=np.float32([[1, 2, 3]]))
    code, details = refused(target.prediction.Predict, request)
    assert code == Code.INVALID_ARGUMENT and "Missing but required: {name}" in details
    request = messages.predict("echo", values=np.float32([1]), other=np.float32([1]))
    code, details = refused(target.prediction.Predict, request)
    assert code == Code.INVALID_ARGUMENT and "Sent extra: {other}" in details
    request = messages.predict("echo", other=np.float32([1]))
    code, details = refused(target.prediction.Predict, request)
    assert code == Code.INVALID_ARGUMENT and "other" in details and "values" in details
    code, details = refused(target.prediction.Predict, messages.predict("nowhere", x=[1.0]))
    assert code == Code.FAILED_PRECONDITION and '"nowhere" not found' in details


@pytest.mark.parametrize(
    "x",
    [
        np.ones((1, 3), np.int32),
        np.ones((1, 3), np.float64),
        np.ones((1, 4), np.float32),
        np.ones(3, np.float32),
        np.array([[b"1", b"2", b"3"]]),
    ],
)
def test_predict_refuses_wrong_types_and_shapes(target: Any, messages: Any, x: Any) -> None:
    request = messages.predict("predict", x=x, name=["a"])
    assert refused(target.prediction.Predict, request)[0] == Code.INVALID_ARGUMENT


def test_predict_refuses_undecodable_tensors(target: Any, messages: Any) -> None:
    request = messages.predict("echo", values=np.float32([1, 2, 3]))
    request.inputs["values"].tensor_content += b"!"
    expected = (Code.INVALID_ARGUMENT, "tensor parsing error: values")
    assert refused(target.prediction.Predict, request) == expected
    request.inputs["values"].tensor_content = request.inputs["values"].tensor_content[:-1]
    request.inputs["values"].tensor_shape.dim[0].size = -1
    assert refused(target.prediction.Predict, request) == expected
    request.inputs["values"].tensor_shape.unknown_rank = True
    assert refused(target.prediction.Predict, request) == expected
    request.inputs["values"].Clear()
    assert refused(target.prediction.Predict, request) == expected


def test_failing_op_answers_with_its_code(target: Any, messages: Any) -> None:
    request = messages.predict("divide", dividend=np.int64([1]), divisor=np.int64([0]))
    code, details = refused(target.prediction.Predict, request)
    assert code == Code.INVALID_ARGUMENT and "division by zero" in details
    code, details = refused(target.prediction.Predict, messages.predict(examples=[b"garbage"]))
    assert code == Code.INVALID_ARGUMENT and "garbage" in details
    code, _ = refused(target.prediction.Predict, messages.predict(examples=[b""]))  # x is missing
    assert code == Code.INVALID_ARGUMENT


def test_bytes_that_are_no_message(target: Any) -> None:
    for method in ("Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata"):
        assert refused(target.raw(method), b"\xff" * 9)[0] == Code.INTERNAL, method
        assert refused(target.raw(method), b"")[0] == Code.INVALID_ARGUMENT, method
    assert refused(target.raw("Predicted"), b"")[0] == Code.UNIMPLEMENTED


def test_classify(target: Any, messages: Any) -> None:
    request = with_examples(classification(), messages, (1, 2, 3), (0, 0, 0))
    response = target.prediction.Classify(request)
    rows = [
        [(entry.label, entry.score) for entry in row.classes]
        for row in response.result.classifications
    ]
    assert rows == [[("like", 12.0), ("share", 24.0)], [("like", 0.0), ("share", 0.0)]]
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("toy", 2, "classify")
    request.model_spec.signature_name = "only_scores"
    response = target.prediction.Classify(request)
    first = response.result.classifications[0].classes
    assert [(entry.label, entry.score) for entry in first] == [("", 12.0), ("", 24.0)]


def test_regress(target: Any, messages: Any) -> None:
    request = with_examples(regression(), messages, (1, 2, 3), (0, 0, 0))
    request.model_spec.version.value = 1
    response = target.prediction.Regress(request)
    assert [entry.value for entry in response.result.regressions] == [6.0, 0.0]
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("toy", 1, "regress")


def test_context_is_merged_into_each_example(target: Any, messages: Any) -> None:
    request = regression()
    both = request.input.example_list_with_context
    both.context.MergeFromString(messages.example(1, 1, 1))
    both.examples.add()  # x from the context
    both.examples.add().MergeFromString(messages.example(1, 2, 3))  # its own
    response = target.prediction.Regress(request)
    assert [entry.value for entry in response.result.regressions] == [6.0, 12.0]


@pytest.mark.parametrize("api", ["Classify", "Regress"])
def test_method_names_are_checked(target: Any, messages: Any, api: str) -> None:
    call = getattr(target.prediction, api)
    make, other = (classification, "regress") if api == "Classify" else (regression, "classify")
    own = CLASSIFY if api == "Classify" else REGRESS
    for signature, was in (
        ("serving_default", "predict"),
        ("predict", "predict"),
        (other, other),
        ("", "predict"),
    ):
        code, details = refused(call, with_examples(make(signature), messages, (1, 2, 3)))
        assert code == Code.INVALID_ARGUMENT
        assert f"method_name to be {own}. Was: tensorflow/serving/{was}" in details
    code, details = refused(call, with_examples(make("nowhere"), messages, (1, 2, 3)))
    assert code == Code.INVALID_ARGUMENT and "nowhere" in details


def test_keys_and_shapes_of_results_are_checked(target: Any, messages: Any) -> None:
    for signature, expected in (
        ("bad_classify", Code.FAILED_PRECONDITION),  # neither classes nor scores
        ("flat_classify", Code.INVALID_ARGUMENT),  # scores of rank 1
    ):
        request = with_examples(classification(signature), messages, (1, 2, 3))
        assert refused(target.prediction.Classify, request)[0] == expected, signature
    for signature, expected in (
        ("bad_regress", Code.FAILED_PRECONDITION),  # no outputs
        ("wide_regress", Code.INVALID_ARGUMENT),  # two columns
    ):
        request = with_examples(regression(signature), messages, (1, 2, 3))
        assert refused(target.prediction.Regress, request)[0] == expected, signature


def test_empty_input(target: Any) -> None:
    expected = (Code.INVALID_ARGUMENT, "Input is empty.")
    assert refused(target.prediction.Classify, classification()) == expected
    assert refused(target.prediction.Regress, regression()) == expected
    request = multi_inference(("classify", CLASSIFY))
    assert refused(target.prediction.MultiInference, request) == expected
    request = classification_pb2.ClassificationRequest()
    assert refused(target.prediction.Classify, request) == (
        Code.INVALID_ARGUMENT,
        "Missing ModelSpec",
    )


def multi_inference(*tasks: tuple[str, str]) -> Any:
    request = inference_pb2.MultiInferenceRequest()
    for signature, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = "toy", signature
    return request


def test_multi_inference(target: Any, messages: Any) -> None:
    tasks = [("classify", CLASSIFY), ("regress", REGRESS), ("regress_share", REGRESS)]
    request = with_examples(multi_inference(*tasks), messages, (1, 2, 3))
    results = target.prediction.MultiInference(request).results
    assert [result.model_spec.signature_name for result in results] == [name for name, _ in tasks]
    assert {result.model_spec.version.value for result in results} == {2}
    classes = results[0].classification_result.classifications[0].classes
    assert [(entry.label, entry.score) for entry in classes] == [("like", 12.0), ("share", 24.0)]
    assert results[1].regression_result.regressions[0].value == 12.0
    assert results[2].regression_result.regressions[0].value == 24.0


def test_multi_inference_rules(target: Any, messages: Any) -> None:
    call = target.prediction.MultiInference

    def outcome(*tasks: tuple[str, str], model: str | None = None) -> tuple[Any, str]:
        request = with_examples(multi_inference(*tasks), messages, (1, 2, 3))
        if model is not None:
            request.tasks[1].model_spec.name = model
        return refused(call, request)

    code, details = outcome(("regress", REGRESS), ("regress", REGRESS))
    assert code == Code.INVALID_ARGUMENT and "Duplicate" in details and "regress" in details
    code, details = outcome(("regress", REGRESS), ("classify", CLASSIFY), model="other")
    assert code == Code.INVALID_ARGUMENT and "same model name" in details
    code, details = outcome(("regress", REGRESS), ("classify", CLASSIFY), model="")
    assert code == Code.INVALID_ARGUMENT and "empty model name" in details
    code, details = outcome(("regress", REGRESS), ("regress_apart", REGRESS))
    assert code == Code.INVALID_ARGUMENT and "must be the same for all Signatures" in details
    code, details = outcome(("regress", CLASSIFY))
    assert code == Code.INVALID_ARGUMENT and CLASSIFY in details
    code, details = outcome(("nowhere", CLASSIFY))
    assert code == Code.INVALID_ARGUMENT and "nowhere" in details
    code, details = outcome(("serving_default", "tensorflow/serving/predict"))
    assert code == Code.UNIMPLEMENTED and "tensorflow/serving/predict" in details
    assert outcome()[0] == Code.INVALID_ARGUMENT


def test_metadata(target: Any) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    call = target.prediction.GetModelMetadata
    assert refused(call, request) == (Code.INVALID_ARGUMENT, "Missing ModelSpec")
    request.model_spec.name = "toy"
    assert refused(call, request)[0] == Code.INVALID_ARGUMENT
    request.metadata_field.append("weights")
    assert refused(call, request)[0] == Code.INVALID_ARGUMENT
    request.metadata_field[:] = ["signature_def"]
    response = call(request)
    assert (response.model_spec.name, response.model_spec.version.value) == ("toy", 2)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    predict = signatures.signature_def["predict"]
    assert set(predict.inputs) == {"x", "name"} and set(predict.outputs) >= {"like", "rows"}
    assert signatures.signature_def["regress"].method_name == REGRESS
    request.model_spec.version.value = 9
    assert refused(call, request)[0] == Code.NOT_FOUND


def test_status(target: Any) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    call = target.models.GetModelStatus
    assert refused(call, request) == (Code.INVALID_ARGUMENT, "Missing ModelSpec")
    request.model_spec.name = "toy"
    states = {s.version: s.state for s in call(request).model_version_status}
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert states == {1: available, 2: available}
    request.model_spec.version.value = 1
    (status,) = call(request).model_version_status
    assert (status.version, status.status.error_code, status.status.error_message) == (1, 0, "")
    request.model_spec.version.value = 9
    assert refused(call, request) == (Code.NOT_FOUND, "Could not find version 9 of model toy")
    request.model_spec.name = "unknown_model"
    request.model_spec.ClearField("version_choice")
    assert refused(call, request)[0] == Code.NOT_FOUND


def test_reload_config_refuses_wrong_lists(target: Any) -> None:
    request = model_management_pb2.ReloadConfigRequest()
    call = target.models.HandleReloadConfigRequest
    assert refused(call, request)[0] == Code.INVALID_ARGUMENT
    for base_path, platform in (("relative", "tensorflow"), ("/absolute", "")):
        request.config.model_config_list.config.add(
            name="other", base_path=base_path, model_platform=platform
        )
        assert refused(call, request)[0] == Code.INVALID_ARGUMENT, (base_path, platform)
        request.Clear()
    for _ in range(2):
        request.config.model_config_list.config.add(
            name="other", base_path="/absolute", model_platform="tensorflow"
        )
    code, details = refused(call, request)
    assert code == Code.INVALID_ARGUMENT and "multiple times" in details


def test_requests_of_64_mb_are_received_and_answered(target: Any, messages: Any) -> None:
    values = np.ones(16 << 20, np.float32)
    response = target.prediction.Predict(messages.predict("total", values=values), timeout=60)
    assert arrays(response) == {"total": float(16 << 20)}
    values = np.arange(2 << 20, dtype=np.float32)  # an answer of 8 MB
    response = target.prediction.Predict(messages.predict("echo", values=values), timeout=60)
    assert np.array_equal(tf.make_ndarray(response.outputs["values"]), values)


def test_malformed_requests_each_get_their_code(target: Any, messages: Any) -> None:
    """A toy model's Predict, so that a real server can take part; see also test_malformed.py."""
    good = messages.predict("predict", x=np.float32([[1, 2, 3]]), name=["a"])
    rng = np.random.default_rng(0)
    predict = target.raw("Predict")
    good_bytes = good.SerializeToString()

    def wrong_type(r: Any) -> Code:
        kind = [np.int32, np.int64, np.float64, np.uint8, np.bool_, np.float16][rng.integers(6)]
        r.inputs["x"].CopyFrom(tf.make_tensor_proto(rng.random((2, 3)).astype(kind)))
        return Code.INVALID_ARGUMENT

    def wrong_shape(r: Any) -> Code:
        shape = [(), (3,), (2, 2), (1, 4), (2, 3, 1), (0, 2)][rng.integers(6)]
        r.inputs["x"].CopyFrom(tf.make_tensor_proto(np.ones(shape, np.float32)))
        return Code.INVALID_ARGUMENT

    def unknown_input(r: Any) -> Code:
        r.inputs[f"feature_{rng.integers(1000)}"].CopyFrom(r.inputs["x"])
        return Code.INVALID_ARGUMENT

    def missing_input(r: Any) -> Code:
        del r.inputs[["x", "name"][rng.integers(2)]]
        return Code.INVALID_ARGUMENT

    def empty(r: Any) -> Code:
        r.inputs.clear()
        return Code.INVALID_ARGUMENT

    def undecodable(r: Any) -> Code:
        r.inputs["x"].tensor_content = rng.bytes(int(rng.integers(1, 12)))
        return Code.INVALID_ARGUMENT

    def unknown_dtype(r: Any) -> Code:
        r.inputs["x"].dtype = int(rng.integers(200, 1000))
        return Code.INVALID_ARGUMENT

    def unknown_model(r: Any) -> Code:
        r.model_spec.name = f"model_{rng.integers(1000)}"
        return Code.NOT_FOUND

    def unknown_version(r: Any) -> Code:
        r.model_spec.version.value = int(rng.integers(3, 1 << 62))
        return Code.NOT_FOUND

    def unknown_label(r: Any) -> Code:
        r.model_spec.version_label = f"label_{rng.integers(1000)}"
        return Code.INVALID_ARGUMENT

    def unknown_signature(r: Any) -> Code:
        r.model_spec.signature_name = f"signature_{rng.integers(1000)}"
        return Code.FAILED_PRECONDITION

    def unknown_output(r: Any) -> Code:
        r.output_filter.append(f"output_{rng.integers(1000)}")
        return Code.INVALID_ARGUMENT

    def garbage_example(r: Any) -> Code:
        row = b"\xff" + rng.bytes(int(rng.integers(1, 50)))
        r.CopyFrom(messages.predict(examples=[row]))
        return Code.INVALID_ARGUMENT

    kinds = [
        wrong_type,
        wrong_shape,
        unknown_input,
        missing_input,
        empty,
        undecodable,
        unknown_dtype,
        unknown_model,
        unknown_version,
        unknown_label,
        unknown_signature,
        unknown_output,
        garbage_example,
    ]
    cases: list[tuple[bytes, Code]] = []
    while len(cases) < 200:
        if len(cases) % 10 == 9:
            cases.append((b"\xff" + rng.bytes(int(rng.integers(1, 200))), Code.INTERNAL))
            continue
        request = predict_pb2.PredictRequest.FromString(good_bytes)
        code = kinds[len(cases) % len(kinds)](request)
        cases.append((request.SerializeToString(), code))
    calls = []
    for number, (data, code) in enumerate(cases):
        calls.append((number, code, predict.future(data, timeout=60)))
        if number % 50 == 0:
            assert arrays(target.prediction.Predict(good))["like"] == [12.0]
    wrong = [
        (number, code, call.code(), call.details())
        for number, code, call in calls
        if call.code() != code
    ]
    assert not wrong, wrong[:5]
    assert arrays(target.prediction.Predict(good))["like"] == [12.0]
