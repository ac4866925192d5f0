"""What is examined: the settings, who would serve by them, and where."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from aero_l2.config import Settings, Sources
from aero_l2.doctor.surroundings import Surroundings
from netns import users


@dataclass(frozen=True, slots=True)
class Subject:
    """settings: those that `serve` would have, or a stand-in where they are faulty.

    sources: what `settings` were made of. listen_setting: what decided where to listen, for people.
    search_path: where programs are looked for. is_root: who asks, and so who would start it.
    """

    settings: Settings
    sources: Sources
    listen_setting: str
    search_path: str
    place: Surroundings
    is_root: bool

    @property
    def user(self) -> str:
        """Who would serve."""
        return (self.settings.user or users.DEFAULT_USER) if self.is_root else users.user_name()

    @property
    def group(self) -> str:
        """That user's group, as a command takes it."""
        try:
            return str(pwd.getpwnam(self.user).pw_gid)
        except KeyError:
            return self.user

    def become_user(self, *folders: str) -> None:
        """Be the service user, as the supervisor becomes it, that sees these folders. Raises LaunchError."""
        if os.geteuid() == 0:
            users.become_service_user(users.find_user(self.user), folders)
