Feature: Complete observability
  Every operation of the manager leaves evidence in the audit log and a sentence in the narration,
  and the two name the same shard and the same request.

  Scenario: Seal operation emits observability events
    Given a VramManager with audit logging and narration enabled
    When I seal a model with 1MB of data
    Then an audit event "VramSealed" should be emitted
    And a narration event with action "seal" should be emitted
    And both events should have the same shard ID
    And both events should have the same correlation ID

  Scenario: The request's own correlation id is kept
    Given a VramManager with audit logging and narration enabled
    And the request has the correlation id "req-123"
    When I seal a model with 1MB of data
    Then every event of the seal carries the correlation id "req-123"

  Scenario Outline: Coverage: <operation>
    Given a VramManager with audit logging and narration enabled
    When the operation "<operation>" takes place
    Then exactly these audit events are emitted: "<audit>"
    And exactly these actions are narrated: "<narration>"
    And all of them carry one correlation ID
    And no sentence claims VRAM that is not there

    Examples:
      | operation        | audit                                      | narration                      |
      | manager init     | PolicyViolation                            | policy_violation, init         |
      | model seal       | VramAllocated, VramSealed                  | allocate, digest, sign, seal   |
      | seal verify      | SealVerified                               | verify                         |
      | execution        | SealVerified                               | verify                         |
      | verify failed    | SealVerificationFailed, ShardQuarantined   | verify_failed                  |
      | allocate failed  | VramAllocationFailed                       | allocate_failed                |
      | driver failed    | VramAllocationFailed                       | allocate_failed                |
      | deallocate       | VramDeallocated                            | deallocate                     |
      | tensors sealed   | VramSealed                                 | digest, sign, seal             |
      | model resealed   | ModelResealed                              | digest, sign, seal             |
      | malformed model  | MalformedModelRejected                     | validate_failed                |
      | wrong digest     | VramAllocated, IntegrityViolation, VramDeallocated | allocate, digest, validate_failed, deallocate |
      | invalid input    | nothing                                    | validate_failed                |
      | forged handle    | SealVerificationFailed                     | verify_failed                  |
      | unknown shard    | SealVerificationFailed                     | verify_failed                  |
      | capacity query   | nothing                                    | capacity_query                 |
      | manager close    | VramDeallocated, VramDeallocated           | deallocate, deallocate         |

  Scenario: On a GPU the manager says that it initialised CUDA
    Given a VramManager on a GPU with audit logging and narration enabled
    Then the narration begins with "Initialized CUDA context on GPU 0 (Pretend H1, 16 MB VRAM)"
    And then says "Initialized VRAM manager with 1 GPU(s), 16 MB total VRAM"
    And no audit event is emitted

  Scenario: A policy that is refused
    Given a machine without a GPU
    When a VramManager is started with the policy "strict"
    Then it refuses to start because of the policy
    And an audit event "PolicyViolation" should be emitted
    And its action taken is "worker_stopped"
    And the narration says "CRITICAL: VRAM-only policy violated on host: host_memory. Action: worker_stopped" at level "fatal"

  Scenario: A policy that allows the host says so exactly once
    Given a VramManager with audit logging and narration enabled
    When three models are sealed, verified and freed
    Then the audit log holds exactly 1 event "PolicyViolation"
    And its action taken is "allowed_by_configuration"
    And the narration says "CRITICAL: VRAM-only policy violated on host: host_memory. Action: allowed_by_configuration" at level "warn"

  Scenario Outline: The sentences of the host device
    Given a VramManager with audit logging and narration enabled
    When the operation "<operation>" takes place
    Then one sentence matches "<sentence>"

    Examples:
      | operation       | sentence                                                                              |
      | manager init    | Initialized host memory manager with 0 GPU\(s\), 16 MB total host memory              |
      | model seal      | Allocated 1 MB host memory on host \(requested 1 MB, \S+ MB available, \S+ ms\)       |
      | model seal      | Computed blake3 digest for 1 MB of data \(\S+ ms, \S+ [KMG]B/s\)                      |
      | model seal      | Generated HMAC-SHA256 signature for shard '\S+' \(\S+ ms\)                            |
      | model seal      | Sealed model shard '\S+' in 1 MB host memory on host \(\S+ ms\)                       |
      | seal verify     | Verified seal for shard '\S+' on host \(\S+ ms\)                                      |
      | verify failed   | CRITICAL: Seal verification failed for shard '\S+' on host: digest_mismatch           |
      | allocate failed | Host memory allocation failed on host: requested 64 MB, only \S+ MB available         |
      | deallocate      | Deallocated 1 MB host memory for shard '\S+' on host \(1000 B still in use\)             |
      | malformed model | Input validation failed for model: .*                                                 |
      | capacity query  | Host capacity: 16 MB available, 1000 B used \(<0.1% utilization\)                       |
