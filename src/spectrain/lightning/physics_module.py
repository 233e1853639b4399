"""The LightningModule that trains a network on the residuals of an equation.

Legend: n residuals, k modes.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import spectrain
from spectrain.errors import InputError
from spectrain.lightning.physics_data import PDEDataModule
from spectrain.lightning.tracking import log_spectrum
from spectrain.optim import GaussNewton, apply_scales, scaled_groups
from spectrain.pde import Points, Residuals
from spectrain.pde.adaptive import draw_adaptively
from spectrain.pde.evaluation import errors
from spectrain.pde.weights import weights_by_trace
from spectrain.preconditioners import SamplePreconditioner, ranks
from spectrain.preconditioners.refresh import attempt
from spectrain.spectrum import Spectrum

# A spectrum of more residuals than this takes the top modes only.
DENSE_UP_TO, TOP = 1536, 256
# Losses on fresh points above this many times the training loss are overfitting, and said so.
PARTED = 100.0


class PhysicsModule(pl.LightningModule):
    """Trains a network on an equation: Gauss-Newton on the residual vector, or any optimizer on its loss |r|^2 / 2.

    With a preconditioner, S acts on the gradient at the residual vector, r -> S r, and the optimizer is any other than
    Gauss-Newton, which is itself S with the ridge map. Its spectrum is that of the residuals' kernel K/n, taken anew
    every `every_n_steps` steps.

    Args:
        network: any `nn.Module` from the equation's inputs to its outputs.
        data: the equation and its points.
        optimizer, schedule, scale_free, preconditioner, config_yaml, hparams: as `WideNetworkModule`.
        rank, every_n_steps: of the preconditioner's spectrum; weights by kernel trace are taken anew as often.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        data: PDEDataModule,
        optimizer: Callable[[Iterable[Any]], Optimizer],
        *,
        schedule: Callable[[Optimizer], LRScheduler] | None = None,
        scale_free: bool = False,
        preconditioner: SamplePreconditioner | None = None,
        rank: int = 128,
        every_n_steps: int = 100,
        config_yaml: str = "",
        hparams: Any = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # Gauss-Newton needs the residual vector, not its gradient
        self.problem = data.problem(network)
        self.network = self.problem.network
        self.preconditioner, self.rank, self.every_n_steps = preconditioner, rank, every_n_steps
        self.measured: dict[str, float] = {}
        self.refreshes, self.refresh_seconds = 0, 0.0
        self._data, self._optimizer, self._schedule = data, optimizer, schedule
        self._scale_free, self._config_yaml = scale_free, config_yaml
        self._given_weights = dict(self.problem.weights)
        self._first: dict[str, Any] = {}  # points and weights of step 0
        if data.balanced:
            self._balance(0)
        if hparams:
            self.save_hyperparameters(hparams)

    def residuals(
        self, step: int, *, fresh: bool = False, weights: Mapping[str, float] | None = None, shared: bool = False
    ) -> Residuals:
        """The residual vector at the points of a step, or at fresh ones; `weights` in place of the present ones.

        Adaptive points are drawn by the network as it is: call it at that step. `shared`: as `Problem.residuals`.
        """
        generator = self._data.generator(step, fresh=fresh)
        by_residual = self._data.adaptive and not fresh
        points = draw_adaptively(self.problem, generator) if by_residual else self.problem.draw(generator)
        if by_residual and shared:  # as for the weights
            points["interior"] = Points(ranks.broadcast(points["interior"].x, 0))
        return self.problem.residuals(points, weights, shared=shared)

    def first_residuals(self) -> Residuals:
        """The residual vector at the points and with the weights of step 0, kept when this is first called."""
        if not self._first:
            x = {name: part.x for name, part in self.residuals(0).points.items()}
            self._first = {"points": x, "weights": dict(self.problem.weights)}
        return self.problem.residuals(self.problem.at(self._first["points"]), self._first["weights"])

    def on_fit_start(self) -> None:
        """Keep the points and weights of step 0, before the network moves; a resumed run has them."""
        self.first_residuals()

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        """One optimizer step on the points of this step, which are the same on all ranks.

        Of a kernel every rank computes its part; of a loss whose gradient is all that is needed, that of its points.
        """
        step = self.trainer.global_step
        if self._data.balanced and step > 0 and step % self.every_n_steps == 0:
            self._balance(step)
        shared = self.trainer.world_size > 1
        residuals = self.residuals(step, shared=shared)
        optimizer: Any = self.optimizers()
        if isinstance(optimizer.optimizer, GaussNewton):
            loss = optimizer.step(closure=lambda: residuals)
            if shared:
                self._agree()
            self.log("optimizer/step_size", optimizer.state["step_size"])
        else:
            if self.preconditioner is not None and step % self.every_n_steps == 0:
                self._refresh(residuals)
            loss = optimizer.step(closure=lambda: self._loss(residuals, optimizer))
        if self._schedule is not None:
            self.lr_schedulers().step()  # type: ignore[union-attr, call-arg]
        self.log("optimizer/lr", float(optimizer.param_groups[0]["lr"]))
        if not bool(torch.isfinite(loss)):
            raise InputError(
                f"The loss is {float(loss)} at step {step}; the run stops here. Try a lower optimizer.lr, or "
                "optimizer=gauss_newton, whose line search cannot diverge."
            )
        self.log("step", float(self.trainer.global_step))
        self.log("train/loss", loss.detach(), prog_bar=True)
        return {"loss": loss.detach()}

    def _balance(self, step: int) -> None:
        points = self.problem.draw(self._data.generator(step))
        self.problem.weights = weights_by_trace(self.problem, points)

    def _agree(self) -> None:
        """Rank 0's weights on every rank: another processor may round the same step to other bits."""
        params = self.problem.parameters()
        flat = ranks.broadcast(torch.cat([p.detach().flatten() for p in params]), 0)
        for p, values in zip(params, flat.split([p.numel() for p in params]), strict=True):
            p.detach().copy_(values.view_as(p))

    def _loss(self, residuals: Residuals, optimizer: Any) -> Tensor:
        """|r|^2 / 2 with its gradient; S enters in the backward pass.

        Of several ranks each takes its share of the points, times their number, as DDP averages; S acts on its rows of
        the whole gradient.
        """
        optimizer.zero_grad()
        S, world, rank = self.preconditioner, self.trainer.world_size, self.trainer.global_rank
        own = residuals if world == 1 else residuals.share(rank, world)
        with torch.enable_grad():
            r = own()
            if S is not None:
                S.shared = world > 1
                r = S(r, residuals.rows_of(rank, world) if S.shared else None)
            loss = 0.5 * r.square().sum()
            self.manual_backward(world * loss)
        return ranks.total(loss.detach(), world > 1)

    def _refresh(self, residuals: Residuals) -> None:
        assert self.preconditioner is not None
        S, begun = self.preconditioner, time.perf_counter()

        def compute() -> Spectrum:
            lin = ranks.together(residuals.linearize, self.trainer.world_size > 1)  # gram waits for all
            K = lin.gram()
            spectrum = ranks.same_spectrum(
                lambda: Spectrum.from_kernel(K, rank=min(self.rank, len(K))), self.trainer.world_size > 1
            )
            S.update(spectrum, dtype=K.dtype)
            return spectrum

        failed = f"The spectrum refresh at step {self.trainer.global_step} failed"
        spectrum = attempt(compute, self.device, failed, lambda: S.goes_on if S.ready else None)
        seconds = time.perf_counter() - begun
        self.refresh_seconds += seconds
        if spectrum is not None:
            self.refreshes += 1
            log_spectrum(self.trainer, spectrum, S.effective_map, {"time/refresh_seconds": seconds})

    def spectrum(self) -> Spectrum:
        """Of the residuals' kernel K/n of the present network, at the points and with the weights of step 0."""
        K = self.first_residuals().linearize().gram()
        return Spectrum.from_kernel(K, rank=None if len(K) <= DENSE_UP_TO else TOP)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Errors against the solution, and the loss on fresh points."""
        self.measure(self.trainer.global_step)
        self.log("step", float(self.trainer.global_step))
        for name, value in self.measured.items():
            self.log(f"val/{name}", value, prog_bar=name == "l2_error")

    @torch.no_grad()
    def measure(self, step: int) -> None:
        """Fill `measured` for the present network.

        Losses are with the conditions' weights as given: those by kernel trace change, and losses with them do not
        compare over steps.
        """
        x = self._data.evaluation_points
        values = errors(self.problem, x)
        values["fresh_loss"] = float(self.residuals(step, fresh=True, weights=self._given_weights).loss())
        values["point_loss"] = float(self.residuals(step, weights=self._given_weights).loss())
        self.measured = values

    def configure_optimizers(self) -> Any:
        """The optimizer and its schedule; Gauss-Newton has one where points are fresh, whole steps on fixed ones."""
        if self._scale_free:
            optimizer = apply_scales(self._optimizer(scaled_groups(self.network)))
        else:
            optimizer = self._optimizer(self.problem.parameters())
        if isinstance(optimizer, GaussNewton) and self._data.resample_every_n_steps is None:
            self._schedule = None
        if self._schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self._schedule(optimizer), "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add version, configuration, first points and preconditioner; all of it tensors and primitives."""
        checkpoint["spectrain_version"] = spectrain.__version__
        checkpoint["config"] = self._config_yaml
        checkpoint["first"] = self._first
        if self._data.balanced:
            checkpoint["weights"] = dict(self.problem.weights)
        if self.preconditioner is not None:
            checkpoint["preconditioner"] = self.preconditioner.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore weights by kernel trace, the points of step 0 and the preconditioner."""
        self._first = checkpoint.get("first", {})
        if self._data.balanced and "weights" in checkpoint:
            self.problem.weights = dict(checkpoint["weights"])
        if self.preconditioner is not None and "preconditioner" in checkpoint:
            self.preconditioner.load_state_dict(checkpoint["preconditioner"])
