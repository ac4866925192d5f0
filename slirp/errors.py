"""What can go wrong with the NAT process. Each message is one line for people."""


class NatError(RuntimeError):
    """Base: the NAT process cannot be used."""


class NatMissing(NatError):
    """The program is not installed, or not where it is looked for."""


class NatUnsuitable(NatError):
    """The program is there but lacks an option that isolation depends on."""


class NatStartError(NatError):
    """The program could not be executed."""
