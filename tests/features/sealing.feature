Feature: Sealing a model
  A seal is made whole or not at all: whatever goes wrong, the memory is free again, the budget is whole,
  the id can be used, and what happened is in the log.

  Background:
    Given a manager of 16 MB

  Scenario: A full audit buffer does not fail a seal
    Given the audit buffer is full
    When a model is sealed
    Then the shard is sealed and verifies
    And 3 audit failures are counted and narrated at level "error"

  Scenario: Where audit is required, a full audit buffer fails the seal and frees everything
    Given a manager that requires audit
    And the audit buffer is full
    When sealing a model is tried
    Then it fails with BufferFullError
    And nothing is left behind
    And the id can be used once the buffer has room

  Scenario Outline: A forged handle is refused, audited and changes nothing: <field>
    Given a sealed shard
    When a handle whose "<field>" was altered is used
    Then it fails with UnknownShardError
    And the failure is audited with reason "<reason>" and action "request_rejected"
    And the shard is not quarantined and still verifies

    Examples:
      | field        | reason            |
      | shard_id     | unknown_shard     |
      | gpu_device   | signature_invalid |
      | vram_bytes   | signature_invalid |
      | digest       | signature_invalid |
      | sealed_at    | signature_invalid |
      | worker_id    | signature_invalid |
      | model_ref    | signature_invalid |
      | shard_index  | signature_invalid |
      | total_shards | signature_invalid |
      | tensors      | signature_invalid |
      | path         | signature_invalid |

  Scenario Outline: An id is never used twice, not even <when>
    Given a sealed shard
    And the shard <state>
    When sealing a model under the same id is tried
    Then it fails with DuplicateShardError
    And the narration has an event with action "validate_failed"

    Examples:
      | when                     | state           |
      | while the first is there | is kept         |
      | after it was freed       | was deallocated |
      | after it was damaged     | was damaged     |

  Scenario: A model that does not fit is refused with the figures
    Given a sealed shard
    When sealing a model of 16 MB is tried
    Then it fails with InsufficientMemoryError
    And the audit event "vram_allocation_failed" says that 16777216 bytes were requested for want of room
    And the first shard still verifies

  Scenario: Seals that race for the last memory never overshoot
    When 12 threads seal models of 3 MB at the same moment
    Then exactly 5 of them succeed
    And the others fail with InsufficientMemoryError
    And no moment had more than 16 MB in use

  Scenario Outline: What goes wrong while sealing leaves nothing behind: <fault>
    When sealing meets "<fault>"
    Then it fails with <error>
    And the audit log ends with "<events>"
    And nothing is left behind
    And the id can be used again

    Examples:
      | fault                       | error               | events                                                     |
      | file changed while read     | MalformedModelError | vram_allocated, malformed_model_rejected, vram_deallocated |
      | file truncated while read   | MalformedModelError | vram_allocated, malformed_model_rejected, vram_deallocated |
      | another blake3 expected     | DigestMismatchError | vram_allocated, integrity_violation, vram_deallocated      |
      | another sha256 expected     | DigestMismatchError | vram_allocated, integrity_violation, vram_deallocated      |
      | malformed header            | MalformedModelError | malformed_model_rejected                                   |
      | empty file                  | MalformedModelError | malformed_model_rejected                                   |
      | no such file                | InvalidInputError   |                                                            |
      | unsound digest expected     | InvalidInputError   |                                                            |
      | unknown algorithm           | InvalidInputError   |                                                            |
      | progress callback cancels   | Cancelled           | vram_allocated, vram_deallocated                           |
      | interrupt while filling     | KeyboardInterrupt   | vram_allocated, vram_deallocated                           |
      | interrupt while digesting   | KeyboardInterrupt   | vram_allocated, vram_deallocated                           |
      | out of memory               | AllocationError     | vram_allocation_failed                                     |
      | allocate: driver error      | AllocationError     | vram_allocation_failed                                     |
      | allocate: system error      | AllocationError     | vram_allocation_failed                                     |
      | fill: driver error          | AllocationError     | vram_allocated, vram_allocation_failed, vram_deallocated   |
      | fill: device lost           | DeviceLostError     | vram_allocated, vram_allocation_failed, vram_deallocated   |
      | seal: driver error          | AllocationError     | vram_allocated, vram_allocation_failed, vram_deallocated   |
      | seal: system error          | AllocationError     | vram_allocated, vram_allocation_failed, vram_deallocated   |
      | view: device lost           | DeviceLostError     | vram_allocated, vram_allocation_failed, vram_deallocated   |
      | view: system error          | AllocationError     | vram_allocated, vram_allocation_failed, vram_deallocated   |
      | facts: system error         | AllocationError     | vram_allocated, vram_allocation_failed, vram_deallocated   |
      | memory that must be locked  | PolicyViolationError | vram_allocated, policy_violation, vram_deallocated        |
