"""The deployments of this server by uid: finds them, and publishes their routes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from xinference.control.publisher import Publisher
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.deployment import Deployment
from xinference.deployments.views import listing_entry
from xinference.error_codes import Code
from xinference.errors import Problem, join_names, near, not_found
from xinference.store.launch_history import LaunchHistory

#: Maximum number of characters of an unknown uid that are compared and shown.
MAX_SHOWN = 200


class DeploymentRegistry:
    """Holds one deployment for each uid. Iteration gives them in the order in which they were added."""

    def __init__(self, publisher: Publisher, history: LaunchHistory) -> None:
        self._publisher = publisher
        self._history = history
        self._by_uid: dict[str, Deployment | BrokenDeployment] = {}

    def __iter__(self) -> Iterator[Deployment | BrokenDeployment]:
        return iter(self._by_uid.values())

    def __contains__(self, uid: object) -> bool:
        return uid in self._by_uid

    # -- changes ----------------------------------------------------------------------------------------------

    def add(self, deployment: Deployment | BrokenDeployment) -> None:
        """Add a deployment, in place of an earlier one of its uid."""
        self._by_uid[deployment.uid] = deployment

    def remove(self, uid: str) -> None:
        del self._by_uid[uid]

    def publish(self) -> None:
        """Publish a new routing table with the routes of all deployments."""
        self._publisher.publish((each.route, listing_entry(each.uid, each.description)) for each in self)

    # -- look-ups ---------------------------------------------------------------------------------------------

    def get(self, uid: str) -> Deployment | BrokenDeployment | None:
        """One deployment by its uid; None if there is none."""
        return self._by_uid.get(uid)

    def deployment(self, uid: str) -> Deployment | BrokenDeployment:
        """One deployment by its uid.

        Raises:
            Problem: 404, with the running models.
        """
        deployment = self._by_uid.get(uid)
        if deployment is None:
            raise self.not_found(uid)
        return deployment

    def running(self, uid: str) -> Deployment:
        """One deployment by its uid, which is not a `BrokenDeployment`.

        Raises:
            Problem: 404; or the reason why the stored deployment could not be restored.
        """
        deployment = self.deployment(uid)
        if isinstance(deployment, BrokenDeployment):
            raise deployment.problem
        return deployment

    def working(self) -> list[Deployment]:
        """The deployments that were launched or restored, without those that could not be restored."""
        return [deployment for deployment in self if isinstance(deployment, Deployment)]

    def has(self, deployment: Deployment | BrokenDeployment) -> bool:
        """Whether a deployment has not ended, and has not been replaced."""
        return deployment in self._by_uid.values()

    def uid_of(self, name: str) -> str:
        """The uid of the deployment with this uid or alias; the name itself if there is none."""
        route = self._publisher.table.routes.get(name)
        return name if route is None or name in self or route.parent is not None else route.uid

    def names(self) -> Collection[str]:
        """All uids, and the names of all routes: of aliases and adapters, too."""
        return self._by_uid.keys() | self._publisher.table.routes.keys()

    def log_paths(self) -> set[Path]:
        """The log files of running replicas, and that of the last replica of each deployment without one."""
        return {path for deployment in self for path in deployment.log_paths}

    def not_found(self, uid: str) -> Problem:
        """The refusal of an unknown uid, with the reason of its failure, similar uids or all uids."""
        if (owner := self.uid_of(uid)) != uid:
            cause = f"{uid!r} is an alias of {owner}, and this needs its uid."
            return not_found(cause, hint=f"Use {owner}.", code=Code.MODEL_NOT_FOUND)
        failed = self._history.failure(uid)
        if failed is not None and failed.problem is not None:
            cause = f"There is no running model {uid!r}: its launch has failed."
            hint = f"{failed.problem.cause} `xinference history` has the details."
            return not_found(cause, hint=hint, code=Code.MODEL_NOT_FOUND)
        uid = uid[:MAX_SHOWN]
        similar = near(uid, self._by_uid)
        running = ", ".join(self._by_uid) or "none"
        hint = f"Did you mean {join_names(similar)}?" if similar else f"Running models: {running}."
        return not_found(f"There is no running model {uid!r}.", hint=hint, code=Code.MODEL_NOT_FOUND)
