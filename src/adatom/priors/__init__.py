"""Physics that is added to what a network learns; ``PRIORS`` names each one's configuration."""

from adatom.priors.zbl import ZBL, ZBLConfig

PRIORS = {"zbl": lambda values: ZBL(ZBLConfig.parse(values))}

__all__ = ["PRIORS", "ZBL", "ZBLConfig"]
