"""The data doctor: what is wrong with a data set, before anybody trains on it."""

from adatom.data.doctor.charges import unseen
from adatom.data.doctor.examine import Examination, consistency, examine, stop
from adatom.data.doctor.finding import Finding

__all__ = ["Examination", "Finding", "consistency", "examine", "stop", "unseen"]
