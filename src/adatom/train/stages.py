"""The stages of a run: one as a rule, or a direct head first and the gradient of the energy after it.

Forces from a head need no derivative of the energy, so a step costs a fraction of a conservative one. A network that
has learned them has seen most of what there is to see; its head is then dropped, forces become the derivative of the
energy, and the network is fine-tuned at a lower learning rate. After Qu et al. (AllScAIP, 2026) and their predecessors.
"""

from __future__ import annotations

from typing import NamedTuple

from adatom.errors import ConfigError
from adatom.models import MODELS, ModelConfig
from adatom.potential import Potential
from adatom.train.config import StageConfig, TrainConfig
from adatom.train.loss import LossConfig
from adatom.train.optimize import OptimizerConfig


class Stage(NamedTuple):
    """What is trained until a fraction ``end`` of the limits, how, and towards what."""

    name: str  # "" where there is one stage only
    model: ModelConfig
    optimizer: OptimizerConfig
    loss: LossConfig
    end: float


def stages_of(config: TrainConfig) -> tuple[Stage, ...]:
    """The stages of a run in order.

    What the two stages do not say of themselves: the first has the learning rate of ``optimizer`` and the weights of
    ``loss`` without the late ones, which are for the energies at the very end; the second has half of that rate and
    all of ``loss``.
    """
    if config.schedule == "single":
        return (Stage("", config.model, config.optimizer, config.loss, 1.0),)
    early, late = config.stages.direct, config.stages.conservative
    rate = config.optimizer.lr
    return (
        Stage(
            "direct",
            config.model.with_derivatives("direct"),
            _optimizer(config.optimizer, early, rate),
            early.loss or config.loss.model_copy(update={"late": None}),
            config.stages.share,
        ),
        Stage(
            "conservative",
            config.model.with_derivatives("gradient"),
            _optimizer(config.optimizer, late, 0.5 * rate),
            late.loss or config.loss,
            1.0,
        ),
    )


def swapped(potential: Potential, model: ModelConfig) -> Potential:
    """The same potential with the network of another configuration, which takes over every weight it has.

    ConfigError when that network has a weight the trained one has not: it would stay as it was drawn.
    """
    network = MODELS[model.architecture](model)
    trained = potential.network.state_dict()
    missing = [n for n, t in network.state_dict().items() if n not in trained or trained[n].shape != t.shape]
    if missing:
        raise ConfigError(
            f"{type(network).__name__} cannot change from one stage of training to the next",
            where="schedule",
            wanted="a network with a direct head that holds every weight of the one without",
            got=f"none for {', '.join(missing[:4])}",
            remedy="set schedule to single, or let the architecture add its heads under names of their own",
        )
    network.to(device=potential.references.device, dtype=potential.dtype)  # first: weights keep all their digits
    network.load_state_dict({name: trained[name] for name in network.state_dict()})
    references = potential.all_references()
    priors = tuple(potential.priors)
    other = Potential(network, references, float(potential.scale), priors, model.derivatives, potential.card)  # type: ignore[arg-type]
    return other.to(potential.references.device)


def _optimizer(shared: OptimizerConfig, own: StageConfig, rate: float) -> OptimizerConfig:
    warmup = shared.warmup_steps if own.warmup_steps is None else own.warmup_steps
    final = shared.final_lr if own.final_lr is None else own.final_lr
    return shared.model_copy(update={"lr": own.lr or rate, "warmup_steps": warmup, "final_lr": final})
