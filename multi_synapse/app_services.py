"""Asks an application service (a bridge, a bot) whether it is there, as its own ping endpoint does (docs/control-api.md)."""

from __future__ import annotations

import time
from typing import Any

from synapse.api.errors import CodeMessageException
from synapse.http import RequestTimedOutError
from synapse.logging.context import LoggingContext, PreserveLoggingContext, run_in_background

from .errors import Refused

_LONGEST_ID = 255
_LONGEST_PROBLEM = 300


def id_in(value: Any) -> str:
    """@raises Refused InvalidArgument"""
    if not isinstance(value, dict) or set(value) != {"id"} or not isinstance(value["id"], str) or not 0 < len(value["id"]) <= _LONGEST_ID:
        raise Refused(400, "InvalidArgument", 'the request is not {"id": TEXT}')
    return str(value["id"])


async def ping(hs: Any, service_id: str) -> dict[str, Any]:
    """`milliseconds` until it answered, or its `problem`. @raises Refused AppServiceNotFound"""
    with PreserveLoggingContext(LoggingContext(name="shard_app_services", server_name=hs.hostname)):
        done = run_in_background(_ping, hs, service_id)
    answer: dict[str, Any] = await done
    return answer


async def _ping(hs: Any, service_id: str) -> dict[str, Any]:
    service = hs.get_datastores().main.get_app_service_by_id(service_id)
    if service is None:
        raise Refused(404, "AppServiceNotFound", f"{hs.hostname} runs with no application service {service_id}")
    if not service.url:
        return {"problem": "it has no url: nothing is sent to it"}
    began = time.monotonic()
    try:
        await hs.get_application_service_api().ping(service, None)
    except RequestTimedOutError:
        return {"problem": "it did not answer in time"}
    except CodeMessageException as error:
        return {"problem": f"it answered {error.code} {error.msg}"[:_LONGEST_PROBLEM]}
    except Exception as error:
        # Whatever keeps a connection from being made, a refused network included.
        return {"problem": f"it could not be reached: {type(error).__name__}: {error}"[:_LONGEST_PROBLEM]}
    # What it has not got yet is sent now, not after the back-off.
    hs.get_application_service_scheduler().txn_ctrl.force_retry(service)
    return {"milliseconds": int((time.monotonic() - began) * 1000)}
