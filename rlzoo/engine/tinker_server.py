"""A connection to a server of the Tinker API: what is checked at the start, and how long an answer is waited for.

A request may take as long as it takes: the first of its shape is compiled for minutes. What ends it is a server that
does not answer pings for `patience` seconds; meanwhile the SDK repeats the request by itself.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import io
import logging
import os
import tarfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import urlopen

from rlzoo.config.engine import EngineSettings
from rlzoo.engine.driver import drive
from rlzoo.errors import UserError

Answer = TypeVar("Answer")
SDK = "0.25"
"""The version of the SDK whose requests open servers understand."""
PATIENCE = 300.0
PING_EVERY = 5.0
REACHED_WITHIN = 10.0
"""Seconds in which the server has to answer a ping."""
ANONYMOUS = "tml-none"
"""Key for servers that ask for none; the SDK demands one of this form."""
PARTS = ("adapter_config.json", "adapter_model.safetensors")
"""Files of an adapter in PEFT's format."""


def sdk() -> Any:
    """Return the SDK.

    Raises:
        UserError: it is not installed, or in another version.
    """
    try:
        found = importlib.metadata.version("tinker")
        os.environ.setdefault("TINKER_TELEMETRY", "0")  # it would send what fails here to the server
        import tinker

        logging.getLogger("tinker.lib.public_interfaces.rest_client").setLevel(logging.ERROR)  # tells of each download
    except ImportError as error:
        raise UserError("engine.name = 'tinker' needs a package: pip install 'rlzoo[tinker]'") from error
    if found.rpartition(".")[0] != SDK:
        raise UserError(f"tinker {found} is installed, and this engine speaks {SDK}: pip install 'tinker=={SDK}.*'")
    return tinker


def ping(url: str) -> str | None:
    """Return why the server cannot be reached; None if it answers."""
    try:
        with urlopen(f"{url.rstrip('/')}/api/v1/healthz", timeout=REACHED_WITHIN):
            return None
    except HTTPError as error:
        return None if error.code in (401, 403, 429) else f"it answers {error.code} and is no server of the Tinker API"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


class Server:
    """The server with its SDK's clients. `models`: name -> context length (None: unknown)."""

    def __init__(self, settings: EngineSettings) -> None:
        """Connect.

        Raises:
            UserError: nobody answers at the address, or nobody who speaks this version of the API.
        """
        assert settings.url is not None, "the settings make sure of it"
        self.url, self.patience = settings.url, settings.patience or PATIENCE
        self._pinged, self._answers = -PING_EVERY, True
        reason = ping(self.url)
        if reason is not None:
            raise UserError(f"no Tinker server can be reached at engine.url = {self.url!r}: {reason}")
        self.sdk = sdk()
        self.types = self.sdk.types
        key = os.environ.get("TINKER_API_KEY") or ANONYMOUS
        try:
            self.service = self.sdk.ServiceClient(base_url=self.url, api_key=key)
            found = drive(self.service.get_server_capabilities_async())
        except (self.sdk.AuthenticationError, self.sdk.PermissionDeniedError) as error:
            raise UserError(f"{self.url} refuses the key in TINKER_API_KEY: {error}") from error
        except Exception as error:
            raise UserError(
                f"{self.url} does not understand tinker {SDK}: it is a server of another version, or of something else "
                f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            ) from error
        self.models = {model.model_name: model.max_context_length for model in found.supported_models}

    def refuse_unknown(self, model: str) -> None:
        """Raise `UserError` for a model that the server does not have."""
        if model not in self.models:
            raise UserError(
                f"the server at {self.url} does not have the model {model!r}: set backbone.model to one that it has, "
                f"{', '.join(sorted(map(str, self.models)))}"
            )

    async def answer(self, action: str, asked: Awaitable[Answer]) -> Answer:
        """Wait for the answer to one request.

        Raises:
            UserError: the server refused it, failed, or has gone away for longer than `patience`.
        """
        task = asyncio.ensure_future(asked)
        gone: float | None = None
        try:
            while not (await asyncio.wait({task}, timeout=PING_EVERY))[0]:
                now = time.monotonic()
                gone = None if await self._alive() else now if gone is None else gone
                if gone is not None and now - gone >= self.patience:
                    raise UserError(
                        f"the server at {self.url} has gone away: no answer for {self.patience:g} s (engine.patience) "
                        f"while {action}. Continue with --resume once it is back"
                    )
            return task.result()
        except UserError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:400]
            raise UserError(f"{action} failed on the server at {self.url}: {type(error).__name__}: {reason}") from error
        finally:
            task.cancel()

    async def ask(self, action: str, asked: Awaitable[Awaitable[Answer]]) -> Answer:
        """The same for requests for which the SDK has a coroutine that sends them and returns a future."""

        async def both() -> Answer:
            return await (await asked)

        return await self.answer(action, both())

    async def _alive(self) -> bool:
        """Whether the server answers a ping; many waiting requests share one."""
        if time.monotonic() - self._pinged >= PING_EVERY:
            self._pinged = time.monotonic()
            self._answers = await asyncio.to_thread(ping, self.url) is None
        return self._answers

    async def unload(self, model_id: str) -> None:
        """Give an adapter's place on the server back; one that has gone away does so by itself."""
        from tinker.lib.client_connection_pool_type import ClientConnectionPoolType

        async def ask() -> None:
            with self.service.holder.aclient(ClientConnectionPoolType.TRAIN) as client:
                await client.models.unload(request=self.types.UnloadModelRequest(model_id=model_id))

        try:
            async with asyncio.timeout(REACHED_WITHIN):
                await self.service.holder.run_coroutine_threadsafe(ask())
        except (TimeoutError, self.sdk.TinkerError):
            pass

    async def download(self, model_id: str, name: str, folder: Path) -> None:
        """Download an adapter that was saved for the sampler into a folder, in PEFT's format.

        Raises:
            UserError: the server does not hand it out, or something else than an adapter.
        """
        rest = self.service.create_rest_client()
        asked = rest.get_checkpoint_archive_url_async(model_id, name)
        found = await self.answer("asking for the adapter", asked)
        data = await self.answer("downloading the adapter", asyncio.to_thread(_read, found.url))
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = {Path(member.name).name: member for member in archive if member.isfile()}
            for part in PARTS:
                held = archive.extractfile(members[part]) if part in members else None
                if held is None:
                    raise UserError(f"the adapter that {self.url} handed out lacks {part}")
                (folder / part).write_bytes(held.read())


def _read(url: str) -> bytes:
    with urlopen(url, timeout=60) as response:
        return response.read()
