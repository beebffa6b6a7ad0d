Feature: Verification and the gate
  A sealed shard is checked by signature, residency and content before anything executes from it;
  damage is named, audited, and quarantines the shard; a bad handle changes nothing.

  Background:
    Given a sealed model with the tensors "t0" of 300 KB, "t1" of 200 KB and "t2" of 100 KB

  Scenario: One flipped bit is caught and named by range and tensor
    When bit 3 of the byte in the middle of "t1" flips
    And the shard is verified
    Then it fails as damaged with reason "digest_mismatch"
    And the damage lies within 128 KB around that byte and names "t1"
    And the audit log holds the offsets, the tensors and both digests
    And the shard is quarantined

  Scenario Outline: A quarantined shard is never handed out again: <way>
    When bit 0 of the byte in the middle of "t0" flips
    And the shard is verified
    And bit 0 of the byte in the middle of "t0" flips
    Then <way> is refused because the shard is "quarantined"

    Examples:
      | way            |
      | verifying it   |
      | executing it   |
      | attesting it   |

  Scenario Outline: A manager whose own record is damaged trusts nothing: <part>
    When the manager's own record of the "<part>" is damaged
    And the shard is verified
    Then it fails as damaged with reason "signature_invalid"
    And the shard is quarantined

    Examples:
      | part         |
      | statement    |
      | signature    |
      | group values |
      | layout       |
      | residency    |
      | handle       |

  Scenario Outline: A device that no longer answers as it did: <answer>
    When the device answers the next "<operation>" with "<answer>"
    And the shard is verified
    Then it fails as damaged with reason "<reason>"
    And the shard is quarantined

    Examples:
      | operation | answer               | reason       |
      | check     | other memory         | not_resident |
      | check     | a system error       | read_error   |
      | facts     | a lost device        | read_error   |
      | view      | a system error       | read_error   |
      | view      | a lost device        | read_error   |

  Scenario: The gate hands out read-only views that end with the block
    When the model is executed
    Then the views held the sealed bytes by tensor name
    And they could not be written
    And they are refused after the block

  Scenario: The gate blocks a damaged shard
    When bit 0 of the byte in the middle of "t0" flips
    And the model is executed
    Then the block never ran
    And it fails as damaged with reason "digest_mismatch"

  Scenario: Results may be held back until the memory was checked again
    When the model is executed with a recheck while a bit flips inside the block
    Then the block ran
    And it fails as damaged with reason "digest_mismatch"

  Scenario Outline: A gate in mode <mode>
    Given the gate runs in mode "<mode>"
    When bit 0 of the byte in the middle of "t0" flips
    And the model is executed
    Then the block ran
    And <blocked> executions would have been blocked
    And the lesser mode "<mode>" is on record as a policy violation that configuration allows

    Examples:
      | mode | blocked |
      | log  | 1       |
      | off  | 0       |

  Scenario: Bad handles never stop a worker
    When 100 bad handles are used
    Then each was refused and audited
    And the shard still verifies
