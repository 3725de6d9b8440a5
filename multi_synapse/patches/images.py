"""Images are decoded beside the shard's process, in `images.py`."""

from __future__ import annotations

import functools
import logging
from contextvars import ContextVar
from typing import Any

from synapse.media import media_repository
from synapse.media._base import FileInfo
from synapse.media.media_repository import MediaRepository
from synapse.media.thumbnailer import ThumbnailError

from ..images import RemoteImage, image_of
from .process import replace

logger = logging.getLogger(__name__)


def decode_images_apart() -> None:
    #: The image that Synapse's own code finds when it asks for that of a path: it is open by then.
    at_work: ContextVar[RemoteImage] = ContextVar("image at work")

    class ImageAtWork:
        """In the place of `Thumbnailer`."""

        @staticmethod
        def set_limits(_max_image_pixels: int) -> None:
            """Pillow has one limit for the process, which belongs to no tenant: a worker gets that of the image's tenant."""

        def __new__(cls, _path: str) -> RemoteImage:  # type: ignore[misc]
            return at_work.get()

    replace(media_repository, "Thumbnailer", ImageAtWork)

    def with_image(original: Any, file_of: Any) -> Any:
        @functools.wraps(original)
        async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            file = file_of(self, *args, **kwargs)
            if file is None:
                return None
            async with self.media_storage.ensure_media_is_in_local_cache(file) as path:
                try:
                    async with image_of(self, path) as image:
                        token = at_work.set(image)
                        try:
                            return await original(self, *args, **kwargs)
                        finally:
                            at_work.reset(token)
                except ThumbnailError as error:
                    logger.warning("no thumbnails for %s: %s", file.file_id, error)
                    return None

        return method

    def for_all_sizes(
        self: Any, server_name: str | None, media_id: str, file_id: str, media_type: str, url_cache: bool = False
    ) -> FileInfo | None:
        if not self._get_thumbnail_requirements(media_type):
            return None
        return FileInfo(server_name, file_id, url_cache=url_cache)

    def for_local(
        self: Any, media_id: str, t_width: int, t_height: int, t_method: str, t_type: str, url_cache: bool, animated: bool = False
    ) -> FileInfo:
        return FileInfo(None, media_id, url_cache=url_cache)

    def for_remote(
        self: Any,
        server_name: str,
        file_id: str,
        media_id: str,
        t_width: int,
        t_height: int,
        t_method: str,
        t_type: str,
        animated: bool = False,
    ) -> FileInfo:
        return FileInfo(server_name, file_id)

    for name, file_of in (
        ("_generate_thumbnails", for_all_sizes),
        ("generate_local_exact_thumbnail", for_local),
        ("generate_remote_exact_thumbnail", for_remote),
    ):
        replace(MediaRepository, name, with_image(getattr(MediaRepository, name), file_of))
