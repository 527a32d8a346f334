from torchport.conformance.case import Case


def cases() -> list[Case]:
    return []
