"""Public architectures at w8a8: `python -m benchmarks.zoo [NAMES] [--recipe R] [--seconds N] [--write FILE]`.

Networks of timm and of transformers as they are called, with random weights (batch norms re-estimated on the data,
which are random, too): whether each becomes a program, and whether the reference, the torch executor and ONNX Runtime
give the same codes of it. They run in another process, and each line is added to the results at once, so that a run
that was ended goes on where it was. Both packages are optional and have to be installed beside fewbits; timm
imports torchvision, whose wheel has no operators for some builds of torch: see docs/zoo.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import fewbits as fb
from fewbits.artifact.file import to_bytes
from fewbits.errors import FewbitsError
from fewbits.report.engines import agreement

SIZES = {  # of square images, where another than 64 is wanted
    "inception_v3": 107,
    "levit_128s": 224,
    "crossvit_tiny_240": 240,
    "mixer_s32_224": 64,
    "visformer_tiny": 224,
    "efficientvit_m0": 224, "efficientformer_l1": 224,
    "coat_lite_tiny": 64,
    "nest_tiny": 224,
    "maxvit_rmlp_pico_rw_256": 256,
}
RESIZED = ("vit_", "deit", "mixer", "gmlp", "cait", "beit", "eva02", "resmlp", "swin", "coat", "xcit")
"""Beginnings of names of networks that are told the size of their images."""

TIMM = (
    "resnet18", "resnet26d", "legacy_seresnet18", "skresnet18", "resnest14d", "resnext26ts", "ecaresnext26t_32x4d",
    "mobilenetv1_100", "mobilenetv2_050", "mobilenetv3_small_050", "mobilenetv4_conv_small", "mnasnet_small",
    "efficientnet_b0", "efficientnet_lite0", "tf_efficientnetv2_b0", "mixnet_s", "tinynet_e", "lcnet_035",
    "ghostnet_050", "ghostnetv2_100", "repghostnet_050", "fbnetc_100", "spnasnet_100", "semnasnet_075",
    "hardcorenas_a", "rexnet_100", "regnetx_002", "regnety_002", "densenet121", "dla34", "dla46_c", "vgg11_bn",
    "selecsls42", "dpn48b", "hrnet_w18_small", "repvgg_a0", "cspresnet50", "darknet17", "convnext_atto",
    "convnextv2_atto", "poolformer_s12", "edgenext_xx_small", "starnet_s1", "mobilevit_xxs", "mobilevitv2_050",
    "efficientformer_l1", "efficientvit_b0", "fastvit_t8", "pvt_v2_b0", "levit_128s", "vit_tiny_patch16_224",
    "deit_tiny_patch16_224", "mixer_s32_224", "resmlp_12_224", "gmlp_s16_224", "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256", "xcit_nano_12_p16_224", "cait_xxs24_224", "eva02_tiny_patch14_224", "efficientvit_m0",
    "visformer_tiny", "crossvit_tiny_240", "inception_v3",
)


@dataclass(frozen=True)
class Result:
    """One line. refused: the sentence, "" where it became a program; differing: codes that differ between the
    reference, torch and ONNX Runtime; seconds: of fb.quantize, beside whatever else the machine did; commit: of
    fewbits."""

    name: str
    nodes: int
    islands: int
    sqnr: float
    differing: int
    seconds: float
    bytes: int
    refused: str
    recipe: str = "w8a8"
    commit: str = ""

    @property
    def key(self) -> str:
        """What it is a line of."""
        return f"{self.name} by {self.recipe}"


Made = tuple[torch.nn.Module, Any, list[Any]]  # a network, an example, batches


def _image_network(name: str) -> Made:
    import timm  # pyright: ignore[reportMissingImports]  # not among the development packages

    size = SIZES.get(name, 64)
    told = {"img_size": size} if name.startswith(RESIZED) and size == 64 else {}
    if name.startswith("swin_"):
        told = {"img_size": 64, "window_size": 4}
    if name.startswith("swinv2"):
        told = {"img_size": 64, "window_size": 4}
    if name.startswith("eva02"):
        told = {"img_size": 56}
        size = 56
    net = timm.create_model(name, pretrained=False, **told).eval()
    _answer(net)
    random = torch.Generator().manual_seed(1)
    data = [torch.randn(4, 3, size, size, generator=random) for _ in range(2)]
    _settle(net, data)
    return net, data[0][:2], data


def _answer(net: torch.nn.Module) -> None:
    """Layers that begin at 0, as some heads do, with random weights: a network that gives 0 for everything tells
    nothing."""
    for module in net.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.nn.Parameter) and weight.ndim > 1 and not weight.any():
            torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5, generator=torch.Generator().manual_seed(2))


def _settle(net: torch.nn.Module, batches: list[torch.Tensor]) -> None:
    """Batch norms with the statistics of the data, as training would leave them."""
    norms = [module for module in net.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for batch in batches if norms else ():
            net(batch)
    net.eval()


SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 300,
    "max_position_embeddings": 64,
}
SIGHT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
PAIR = {
    "vocab_size": 300,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "use_cache": False,
}


def _tokens(count: int, **more: int) -> dict[str, torch.Tensor]:
    keep = torch.ones(count, 16, dtype=torch.long)
    keep[0, 13:] = 0
    given = {"input_ids": torch.randint(5, 300, (count, 16)), "attention_mask": keep}
    return given | {name: torch.randint(5, 300, (count, length)) for name, length in more.items()}


def _pairs(count: int) -> dict[str, torch.Tensor]:
    return _tokens(count, decoder_input_ids=8)


def _pixels(count: int) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(count, 3, 64, 64)}


def _wave(count: int) -> dict[str, torch.Tensor]:
    return {"input_values": torch.randn(count, 8000)}


Inputs = Callable[[int], dict[str, torch.Tensor]]  # of so many texts, images or sounds


def transformers_networks() -> dict[str, tuple[Callable[[], torch.nn.Module], Inputs]]:
    """Families of the package by name: encoders, decoders, both, vision, speech."""
    import transformers as t  # pyright: ignore[reportMissingImports]  # nor is this

    cache = {"use_cache": False}
    waves = dict(conv_dim=(32,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, **SIGHT)
    distil = {
        "dim": 64,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 128,
        "vocab_size": 300,
        "max_position_embeddings": 64,
    }
    gpt2 = {
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 2,
        "vocab_size": 300,
        "n_positions": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    t5 = {
        "vocab_size": 300,
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 128,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
    }
    grouped = dict(num_key_value_heads=1, **SMALL)
    whisper = {
        "d_model": 64,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 128,
        "decoder_layers": 2,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 128,
        "max_source_positions": 100,
        "vocab_size": 300,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
        "use_cache": False,
    }
    return {
        "BERT": (lambda: t.BertModel(t.BertConfig(**SMALL)), _tokens),
        "BERT, classifier": (lambda: t.BertForSequenceClassification(t.BertConfig(num_labels=3, **SMALL)), _tokens),
        "DistilBERT": (lambda: t.DistilBertForSequenceClassification(t.DistilBertConfig(**distil)), _tokens),
        "RoBERTa": (lambda: t.RobertaModel(t.RobertaConfig(**SMALL)), _tokens),
        "ELECTRA": (lambda: t.ElectraModel(t.ElectraConfig(embedding_size=32, **SMALL)), _tokens),
        "ALBERT": (lambda: t.AlbertModel(t.AlbertConfig(embedding_size=32, **SMALL)), _tokens),
        "MPNet": (lambda: t.MPNetModel(t.MPNetConfig(**SMALL)), _tokens),
        "CamemBERT": (lambda: t.CamembertModel(t.CamembertConfig(**SMALL)), _tokens),
        "XLM-RoBERTa": (lambda: t.XLMRobertaModel(t.XLMRobertaConfig(**SMALL)), _tokens),
        "ModernBERT": (
            lambda: t.ModernBertModel(
                t.ModernBertConfig(
                    global_attn_every_n_layers=2,
                    local_attention=8,
                    pad_token_id=0,
                    bos_token_id=1,
                    eos_token_id=2,
                    cls_token_id=1,
                    sep_token_id=2,
                    **SMALL,
                )
            ),
            _tokens,
        ),
        "GPT-2": (lambda: t.GPT2LMHeadModel(t.GPT2Config(**gpt2, **cache)), _tokens),
        "GPT-NeoX": (lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**SMALL, **cache)), _tokens),
        "OPT": (
            lambda: t.OPTForCausalLM(
                t.OPTConfig(
                    hidden_size=64,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    ffn_dim=128,
                    vocab_size=300,
                    max_position_embeddings=64,
                    word_embed_proj_dim=64,
                    **cache,
                )
            ),
            _tokens,
        ),
        "BLOOM": (
            lambda: t.BloomForCausalLM(t.BloomConfig(hidden_size=64, n_layer=2, n_head=2, vocab_size=300, **cache)),
            _tokens,
        ),
        "Llama": (lambda: t.LlamaForCausalLM(t.LlamaConfig(**grouped, **cache)), _tokens),
        "Mistral": (lambda: t.MistralForCausalLM(t.MistralConfig(sliding_window=8, **grouped, **cache)), _tokens),
        "Qwen2": (lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**grouped, **cache)), _tokens),
        "Gemma": (lambda: t.GemmaForCausalLM(t.GemmaConfig(head_dim=32, **grouped, **cache)), _tokens),
        "Phi": (lambda: t.PhiForCausalLM(t.PhiConfig(**SMALL, **cache)), _tokens),
        "T5": (lambda: t.T5ForConditionalGeneration(t.T5Config(**t5, **cache)), _pairs),
        "BART": (lambda: t.BartForConditionalGeneration(t.BartConfig(max_position_embeddings=64, **PAIR)), _pairs),
        "Marian": (
            lambda: t.MarianMTModel(
                t.MarianConfig(
                    max_position_embeddings=64,
                    pad_token_id=0,
                    eos_token_id=2,
                    forced_eos_token_id=2,
                    decoder_start_token_id=0,
                    **PAIR,
                )
            ),
            _pairs,
        ),
        "ViT": (lambda: t.ViTForImageClassification(t.ViTConfig(image_size=64, patch_size=16, **SIGHT)), _pixels),
        "DeiT": (lambda: t.DeiTModel(t.DeiTConfig(image_size=64, patch_size=16, **SIGHT)), _pixels),
        "DINOv2": (
            lambda: t.Dinov2Model(
                t.Dinov2Config(image_size=64, patch_size=16, hidden_size=64, num_hidden_layers=2, num_attention_heads=2)
            ),
            _pixels,
        ),
        "SigLIP": (lambda: t.SiglipVisionModel(t.SiglipVisionConfig(image_size=64, patch_size=16, **SIGHT)), _pixels),
        "CLIP, images": (lambda: t.CLIPVisionModel(t.CLIPVisionConfig(image_size=64, patch_size=16, **SIGHT)), _pixels),
        "SegFormer": (
            lambda: t.SegformerForSemanticSegmentation(
                t.SegformerConfig(
                    hidden_sizes=[16, 32, 64, 64], depths=[1, 1, 1, 1], decoder_hidden_size=32, num_labels=5
                )
            ),
            _pixels,
        ),
        "ConvNeXt": (
            lambda: t.ConvNextModel(t.ConvNextConfig(hidden_sizes=[16, 32, 64, 64], depths=[1, 1, 1, 1])),
            _pixels,
        ),
        "wav2vec2": (lambda: t.Wav2Vec2Model(t.Wav2Vec2Config(**waves)), _wave),
        "HuBERT": (lambda: t.HubertModel(t.HubertConfig(**waves)), _wave),
        "Whisper": (
            lambda: t.WhisperModel(t.WhisperConfig(**whisper)),
            lambda n: {"input_features": torch.randn(n, 80, 200), "decoder_input_ids": torch.randint(5, 300, (n, 8))},
        ),
    }


TRANSFORMERS = (
    "BERT", "BERT, classifier", "DistilBERT", "RoBERTa", "ELECTRA", "ALBERT", "MPNet", "CamemBERT", "XLM-RoBERTa",
    "ModernBERT", "GPT-2", "GPT-NeoX", "OPT", "BLOOM", "Llama", "Mistral", "Qwen2", "Gemma", "Phi", "T5", "BART",
    "Marian", "ViT", "DeiT", "DINOv2", "SigLIP", "CLIP, images", "SegFormer", "ConvNeXt", "wav2vec2", "HuBERT",
    "Whisper",
)


def _made(name: str) -> Made:
    torch.manual_seed(0)
    if name in TIMM:
        return _image_network(name)
    make, inputs = transformers_networks()[name]
    net = make().eval()
    return net, inputs(2), [inputs(4), inputs(4)]


def measured(name: str, recipe: str, commit: str) -> Result:
    """One network: quantized, compared with the float one, and run on every engine."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    net, example, batches = _made(name)
    begin = time.process_time()
    try:
        quantized = fb.quantize(net, example, batches, recipe=recipe)
    except FewbitsError as error:
        return Result(name, 0, 0, 0.0, 0, time.process_time() - begin, 0, " ".join(str(error).split())[:400], recipe,
                      commit)
    seconds, program = time.process_time() - begin, quantized.program
    test = batches[1]
    with torch.no_grad():
        wanted, got = ([*_tensors(net(**test) if isinstance(test, dict) else net(test))], [*_tensors(quantized(test))])
    noise = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(wanted, got, strict=True))
    power = sum(float(a.double().square().sum()) for a in wanted)
    sqnr = 10 * float(torch.log10(torch.tensor(power / noise))) if noise else float("inf")
    small = {key: value[:2] for key, value in test.items()} if isinstance(test, dict) else test[:2]
    differing = sum(row.differing for row in agreement(program, [small]) if row.exact)
    floats = sum(type(node).__name__ == "FloatCall" for node in program.nodes)
    return Result(name, len(program.nodes), floats, sqnr, differing, seconds, len(to_bytes(program)), "", recipe,
                  commit)


def _tensors(result: Any) -> Iterator[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        if result.is_floating_point():
            yield result
    elif result is not None:
        for part in result.values() if hasattr(result, "values") else result:
            yield from _tensors(part)


def known(file: Path) -> dict[str, Result]:
    """Results so far, the last of each name and recipe."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {result.key: result for line in lines if (result := Result(**json.loads(line)))}


_HEAD = "| network | nodes | float calls | SQNR, dB | differing | seconds | file, kB |\n" + "|---" * 7 + "|"


_MADE = (
    "Made by `python -m benchmarks.zoo --write docs/zoo.md`: random weights, re-estimated batch norms, random data, "
    "64 × 64 images or 16 tokens of which the first text hides three, recipe `w8a8` as it stands, and below it, for "
    "some, what `quantize` does unasked, `default-w8a8`. Layers that begin at 0 have random weights, too. SQNR is "
    "against the "
    "float network over all its outputs; random weights spread their numbers otherwise than trained ones, so it tells "
    "whether something is wrong, not what a trained network would lose. Differing counts the codes of the outputs that "
    "the reference, the torch executor and ONNX Runtime (both forms) do not agree on. Seconds are processor time of "
    "`fb.quantize` on one thread, beside other work. timm needs `pip install --no-deps timm torchvision`, and where "
    "torchvision's wheel has no operators for this build of torch, an emptied `_meta_registrations.py` in it."
)


def document(results: dict[str, Result]) -> str:
    """docs/zoo.md."""
    parts = [
        "# Public architectures at w8a8",
        _MADE,
    ]
    for title, names, recipe in (("timm", TIMM, "w8a8"), ("transformers", TRANSFORMERS, "w8a8"),
                                 ("By `default-w8a8`", (*TIMM, *TRANSFORMERS), "default-w8a8")):
        rows = [result for result in results.values() if result.recipe == recipe and result.name in names]
        rows.sort(key=lambda row: names.index(row.name))
        if not rows:
            continue
        programs = [row for row in rows if not row.refused]
        parts += [
            f"## {title}",
            (f"{len(programs)} of {len(rows)} are programs; {sum(row.differing for row in programs)} codes differ."),
            _HEAD,
        ]
        lines = [
            f"| {row.name} | {row.nodes} | {row.islands} | {row.sqnr:.1f} | {row.differing} | {row.seconds:.1f} | "
            f"{row.bytes / 1000:.0f} |"
            for row in programs
        ]
        parts[-1] = "\n".join([parts[-1], *lines])
        refused = [f"- {row.name}: {row.refused}" for row in rows if row.refused]
        if refused:
            parts.append("Refused, by name:\n\n" + "\n".join(refused))
        commits = {commit: [row.name for row in rows if row.commit == commit]
                   for commit in {row.commit for row in rows}}
        if len(commits) > 1:
            most = max(commits, key=lambda commit: len(commits[commit]))
            others = [f"{commit} ({', '.join(of)})" for commit, of in sorted(commits.items()) if commit != most]
            parts.append(f"Of commit {most}; but {'; '.join(others)}.")
        else:
            parts.append(f"Of commit {next(iter(commits))}.")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of networks; all of them where none is named")
    parser.add_argument("--results", type=Path, default=Path("build/zoo.jsonl"), help="where lines are kept")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no network after so long")
    parser.add_argument("--again", action="store_true", help="also those that have a line")
    parser.add_argument("--write", type=Path, help="the document to write of all results")
    parser.add_argument("--recipe", default="w8a8", help="by which they are quantized")
    parser.add_argument("--commit", default="", help="of fewbits, for the page")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        for name in given.names:
            print(f"BEGIN {name}", flush=True)
            print("RESULT " + json.dumps(asdict(measured(name, given.recipe, given.commit))), flush=True)
        return
    begin = time.monotonic()
    given.results.parent.mkdir(parents=True, exist_ok=True)
    done = {result.name for result in known(given.results).values() if result.recipe == given.recipe}
    left = [name for name in given.names or (*TRANSFORMERS, *TIMM) if given.again or name not in done]
    while left and time.monotonic() - begin < given.seconds:
        left = _run(left, given.recipe, given.results, begin + given.seconds)
    if given.write:
        given.write.write_text(document(known(given.results)))


def _run(names: list[str], recipe: str, results: Path, until: float) -> list[str]:
    """Measures networks one by one in a process of their own, until one ends it or time is over; those that are left.
    What ends the process otherwise than by a result is said, and nothing is kept of it."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.zoo", "--child", "--recipe", recipe,
               "--commit", commit, *names]
    left = list(names)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={
            **os.environ, "OMP_NUM_THREADS": "1"}) as child:
        assert child.stdout is not None and child.stderr is not None
        for line in child.stdout:
            if line.startswith("BEGIN ") and time.monotonic() > until:
                child.kill()
                return left
            if not line.startswith("RESULT "):
                continue
            with results.open("a") as file:
                file.write(line.removeprefix("RESULT "))
            result = Result(**json.loads(line.removeprefix("RESULT ")))
            left.remove(result.name)
            told = f"{result.sqnr:.1f} dB, {result.nodes} nodes, {result.differing} differing, {result.seconds:.0f} s"
            print(f"{result.name}: {result.refused or told}", flush=True)
        words = child.stderr.read().strip().splitlines()
    if left:
        print(f"{left[0]}: CRASH {(words or ['no words'])[-1][:300]}", flush=True)
    return left[1:]


if __name__ == "__main__":
    main()
