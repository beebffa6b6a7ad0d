"""The table of controls, second half: GDPR and the EU AI Act."""

from __future__ import annotations

from typing import Final

from vram_residency.audit.reporting.control import row

GDPR: Final = (
    row(
        ("gdpr", "5(1)(e)", "Personal data is kept no longer than needed"),
        also="pruning deletion erasure",
        beyond="How long is needed; that is for the controller to say.",
    ),
    row(
        ("gdpr", "5(1)(f)", "Personal data is processed with integrity and confidentiality"),
        "chain checks",
        also="damage decisions",
        beyond="Confidentiality, and the systems that hold the data.",
    ),
    row(
        ("gdpr", "5(2)", "The controller can show that it keeps to the principles"),
        "chain",
        beyond="Everything that is shown by other records; this log is one of them.",
    ),
    row(
        ("gdpr", "15", "A person can learn what is held about them"),
        "subject_access",
        also="subject_export",
        whole=True,
        beyond="That the answer was complete and in time, and went to the right person.",
    ),
    row(("gdpr", "16", "A person can have errors put right"), beyond="Corrections."),
    row(
        ("gdpr", "17", "A person can have their data erased"),
        "erasure",
        also="deletion",
        whole=True,
        beyond="That the data is gone from every system and copy.",
    ),
    row(
        ("gdpr", "18, 21", "A person can have processing limited, or object to it"),
        beyond="Restrictions and objections.",
    ),
    row(
        ("gdpr", "20", "A person can take their data elsewhere"),
        "subject_export",
        whole=True,
        beyond="That the export was complete and reached them.",
    ),
    row(
        ("gdpr", "22", "Nobody is subject to certain purely automated decisions"),
        also="use",
        beyond="Which decisions were made and how; the log shows that a model was used, not for what.",
    ),
    row(("gdpr", "28", "Processors are bound by contract"), beyond="Contracts."),
    row(
        ("gdpr", "30", "There are records of processing"),
        also="use tasks",
        beyond="The record itself: purposes, categories, recipients, periods.",
    ),
    row(
        ("gdpr", "32", "Processing is secure, for its risk, and this is tested"),
        "chain checks",
        also="damage logins decisions attacks",
        beyond="The judgement of risk, encryption, and every other measure.",
    ),
    row(
        ("gdpr", "33", "The authority is told of breaches"),
        also="damage attacks misuse containment",
        beyond="The notification; the log can give its facts and their order.",
    ),
    row(("gdpr", "34", "The persons concerned are told of breaches"), beyond="The notification."),
    row(("gdpr", "35", "Impacts are assessed beforehand"), beyond="The assessment."),
)

AI_ACT: Final = (
    row(("ai-act", "9", "Risks are managed over the system's life"), beyond="The management of risks."),
    row(
        ("ai-act", "10", "Data for training and testing is governed"),
        beyond="Data sets and their governance.",
    ),
    row(
        ("ai-act", "12", "The system records events by itself over its lifetime"),
        "chain rhythm checks",
        also="use tasks damage losses openings",
        whole=True,
        beyond="Which further events this system must record, and who checked a result, where asked.",
    ),
    row(("ai-act", "13", "Those who deploy the system understand it"), beyond="Instructions for use."),
    row(
        ("ai-act", "14", "People oversee the system"),
        also="containment",
        beyond="Oversight by people; the log shows when a worker was stopped.",
    ),
    row(
        ("ai-act", "15", "The system is accurate, robust and secure"),
        "seals checks",
        also="damage rejections attacks policy",
        beyond="Accuracy and robustness; shown is that served weights were found to be the sealed ones.",
    ),
    row(("ai-act", "17", "There is a system for managing quality"), beyond="The quality management system."),
    row(("ai-act", "18", "Documentation is kept"), beyond="The technical documentation."),
    row(
        ("ai-act", "19", "The provider keeps the logs that the system made"),
        "chain",
        also="pruning segments",
        whole=True,
        beyond="How long they must be kept, and logs of other parts of the system.",
    ),
    row(
        ("ai-act", "20", "The provider corrects what is not as it should be"),
        also="containment resealing",
        beyond="The correction, and telling those concerned.",
    ),
    row(
        ("ai-act", "26(5)", "The deployer watches the system at work"),
        "checks",
        also="damage policy containment",
        beyond="What people did about it, and reports to the provider.",
    ),
    row(
        ("ai-act", "26(6)", "The deployer keeps the logs that the system made"),
        "chain",
        also="pruning segments",
        whole=True,
        beyond="How long they must be kept, and logs of other parts of the system.",
    ),
    row(("ai-act", "27", "Impacts on fundamental rights are assessed"), beyond="The assessment."),
    row(
        ("ai-act", "55(1)(d)", "General-purpose models with systemic risk are protected"),
        "seals checks",
        also="damage policy",
        beyond="Protection of the infrastructure, and of weights at rest and from being read.",
    ),
    row(
        ("ai-act", "72", "The provider watches the system after it is on the market"),
        also="checks use damage",
        beyond="The plan, and what is learned from users.",
    ),
    row(
        ("ai-act", "73", "Serious incidents are reported"),
        also="damage containment",
        beyond="The report; the log can give its facts and their order.",
    ),
)
