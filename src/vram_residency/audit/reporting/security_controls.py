"""The table of controls, first half: SOC 2 and ISO/IEC 27001."""

from __future__ import annotations

from typing import Final

from vram_residency.audit.reporting.control import row

SOC2: Final = (
    row(
        ("soc2", "CC4.1", "Whether controls work is looked at again and again"),
        "checks rhythm",
        also="damage",
        beyond="Reviews of all other controls, by people who answer for them.",
    ),
    row(
        ("soc2", "CC6.1", "Only those who should can reach protected systems and data"),
        "logins decisions",
        also="misuse",
        whole=True,
        beyond="Whether the rules themselves are right, and every system that does not write to this log.",
    ),
    row(
        ("soc2", "CC6.2", "Credentials are given and taken away in order"),
        "tokens",
        beyond="Who approved each, and the credentials of other systems.",
    ),
    row(
        ("soc2", "CC6.3", "Rights follow roles and are withdrawn in time"),
        "rights",
        beyond="Roles, separation of duties and regular reviews of rights.",
    ),
    row(
        ("soc2", "CC6.6", "Threats from outside are kept out"),
        also="attacks misuse rejections",
        beyond="Network boundaries, and attacks that never reached this service.",
    ),
    row(
        ("soc2", "CC6.7", "Data is moved and handed on only as allowed"),
        also="subject_export sharing",
        beyond="Transport, removable media and endpoints.",
    ),
    row(
        ("soc2", "CC6.8", "Unauthorised or harmful changes are prevented or found"),
        "seals checks",
        also="damage containment rejections",
        whole=True,
        beyond="All software and data other than sealed model weights.",
    ),
    row(
        ("soc2", "CC7.1", "Changes of configuration and new weaknesses are found"),
        "checks",
        also="policy inventory",
        beyond="Scans for vulnerabilities, and the configuration of hosts and networks.",
    ),
    row(
        ("soc2", "CC7.2", "Systems are watched for what is out of the ordinary"),
        "chain rhythm checks",
        also="damage attacks misuse policy losses",
        whole=True,
        beyond="Who looks at the alerts, and what other systems show.",
    ),
    row(
        ("soc2", "CC7.3", "Security events are judged"),
        also="damage attacks misuse policy",
        beyond="The judgement: the log holds the facts and their severity, not what people concluded.",
    ),
    row(
        ("soc2", "CC7.4", "Incidents are answered by a set procedure"),
        also="containment tokens",
        beyond="The procedure, the people and the messages; the log holds the automatic answer alone.",
    ),
    row(
        ("soc2", "CC7.5", "After an incident, normal work is restored"),
        also="openings recovery resealing",
        beyond="Plans, their rehearsal, and the restoration of everything but this log and sealed models.",
    ),
    row(
        ("soc2", "CC8.1", "Changes are asked for, tested, approved and recorded"),
        "seals",
        also="resealing inventory keys",
        beyond="Request, test and approval of each change, and changes of software.",
    ),
    row(
        ("soc2", "CC9.2", "Risks from suppliers are managed"),
        beyond="Contracts with suppliers and reviews of them.",
    ),
    row(
        ("soc2", "A1.1", "Capacity is measured and planned"),
        "memory",
        beyond="Planning, and every resource but device memory.",
    ),
    row(
        ("soc2", "A1.2", "Backups and surroundings keep the service available"),
        beyond="Backups, power and sites.",
    ),
    row(
        ("soc2", "C1.2", "Confidential information is disposed of"),
        also="deletion release",
        beyond="Disposal of media and copies elsewhere.",
    ),
    row(
        ("soc2", "PI1.2", "Inputs are complete and right"),
        "seals",
        also="rejections damage",
        beyond="Inputs other than model files.",
    ),
    row(
        ("soc2", "PI1.3", "Processing is complete and right"),
        "checks tasks",
        also="use damage",
        beyond="Whether results are right: what is shown is that the weights were the sealed ones.",
    ),
    row(
        ("soc2", "PI1.4", "Outputs reach those they are meant for, complete and right"),
        beyond="Delivery and accuracy of outputs.",
    ),
    row(
        ("soc2", "PI1.5", "What is stored stays complete and right"),
        "chain seals checks",
        also="damage pruning losses",
        beyond="Stored data other than this log and models in memory.",
    ),
    row(
        ("soc2", "P4.3", "Personal information is disposed of"),
        also="erasure deletion",
        beyond="Whether the data is gone from every system.",
    ),
    row(
        ("soc2", "P5.1", "People can see the personal information held about them"),
        also="subject_access subject_export",
        beyond="How identity was checked, and what was handed out.",
    ),
)

ISO27001: Final = (
    row(
        ("iso27001", "5.9", "There is an inventory of assets"),
        "seals",
        also="inventory",
        beyond="Owners, and all assets other than models, pools and nodes.",
    ),
    row(
        ("iso27001", "5.15", "Access is ruled"),
        "decisions",
        beyond="The rules, and systems that do not write to this log.",
    ),
    row(
        ("iso27001", "5.16", "Identities are managed over their lifetime"),
        also="tokens",
        beyond="Identities of people and their registration.",
    ),
    row(
        ("iso27001", "5.17", "Secrets for authentication are handled with care"),
        also="tokens misuse",
        beyond="How secrets are chosen, handed over and kept.",
    ),
    row(
        ("iso27001", "5.18", "Access rights are given, reviewed and withdrawn"),
        "rights",
        also="tokens",
        beyond="Approval and regular review.",
    ),
    row(("iso27001", "5.24", "Handling of incidents is prepared"), beyond="Roles, plans and exercises."),
    row(
        ("iso27001", "5.25", "Events are judged: is this an incident?"),
        also="damage attacks misuse policy",
        beyond="The judgement; the log holds the facts and their severity.",
    ),
    row(
        ("iso27001", "5.26", "Incidents are answered"),
        also="containment",
        beyond="What people did; the log holds the automatic answer alone.",
    ),
    row(
        ("iso27001", "5.28", "Evidence is collected and kept so that it can be relied upon"),
        "chain",
        also="segments keys",
        whole=True,
        beyond="Evidence from other systems, and the chain of custody after the log was handed over.",
    ),
    row(
        ("iso27001", "5.33", "Records are protected from loss and falsification"),
        "chain",
        also="pruning segments losses",
        whole=True,
        beyond="Records other than this log, copies of it elsewhere, and how long they must be kept.",
    ),
    row(
        ("iso27001", "5.34", "Personal data is protected"),
        also="erasure deletion subject_access subject_export",
        beyond="Everything about personal data that this log does not record.",
    ),
    row(
        ("iso27001", "8.2", "Privileged rights are limited"),
        also="rights",
        beyond="Which rights are privileged, and their review.",
    ),
    row(
        ("iso27001", "8.3", "Access to information is restricted"),
        "decisions",
        also="use",
        beyond="The rules, and systems that do not write to this log.",
    ),
    row(
        ("iso27001", "8.5", "Authentication is secure"),
        "logins",
        also="misuse",
        beyond="The strength of the methods.",
    ),
    row(("iso27001", "8.6", "Capacity is watched"), "memory", beyond="Every resource but device memory."),
    row(
        ("iso27001", "8.7", "Malware is kept out"),
        beyond="Protection against malware; refused model files are no proof of it.",
    ),
    row(
        ("iso27001", "8.8", "Technical vulnerabilities are managed"), beyond="Scans, advisories and patches."
    ),
    row(
        ("iso27001", "8.9", "Configurations are set, recorded and watched"),
        "seals checks",
        also="policy inventory resealing",
        beyond="Configurations other than which weights lie in which memory.",
    ),
    row(
        ("iso27001", "8.10", "Information is deleted when it is no longer needed"),
        also="deletion erasure release pruning",
        beyond="When it is no longer needed, and copies elsewhere.",
    ),
    row(("iso27001", "8.13", "There are backups, and they are tried"), beyond="Backups."),
    row(
        ("iso27001", "8.15", "Activities, faults and events are logged, and the logs protected"),
        "chain rhythm openings",
        also="losses readers segments",
        whole=True,
        beyond="Logs of other systems, and that somebody looks at them.",
    ),
    row(
        ("iso27001", "8.16", "Systems are watched for anomalies"),
        "checks rhythm",
        also="damage attacks misuse policy",
        whole=True,
        beyond="Networks and other systems, and who answers alerts.",
    ),
    row(
        ("iso27001", "8.17", "Clocks are synchronised"),
        also="clock",
        beyond="Synchronisation itself: timestamps here are the machine's own clock.",
    ),
    row(
        ("iso27001", "8.24", "Cryptography is used by rules, keys included"),
        "chain",
        also="seals keys",
        beyond="The rules, and where keys are kept.",
    ),
    row(
        ("iso27001", "8.32", "Changes are managed"),
        "seals",
        also="resealing inventory keys",
        beyond="Request, test and approval, and changes of software.",
    ),
)
