"""The ways a model call or a workflow fails.

ChainError
└── ProviderError                every failure of a model call; also one of the kernel's three kinds:
    ├── ProviderMisconfigured    (Misconfigured) a wrong key, an unknown model, no credit
    ├── ProviderRefused          (Refused) the provider won't answer this request
    │   └── ProviderContextExceeded  `context_exceeded`: the prompt is longer than the model's window
    ├── ProviderRateLimited      (Unavailable) with `retry_after`
    ├── ProviderUnavailable      (Unavailable) not reached, or an error of its own
    ├── ProviderTimeout          (Unavailable) silent for longer than the alias allows
    ├── ProviderTruncated        (Unavailable) the answer broke off; its text so far is kept
    └── ProviderBadResponse      (Unavailable) bytes that are no answer
WorkflowInvalid                  (Invalid) the message begins with the path to the fault: "steps[2].model: …"
PromptInvalid                    (Invalid) the message names the variable or the key at fault
WorkflowTimeout                  (Unavailable) the whole run took longer than it may
OutputInvalid                    (Unavailable) the answer never took the form that the workflow asks for
ToolFailed                       (Unavailable) a tool failed or took too long
QuestionRefused, AnswerRefused   (Refused) a validator objects; the message is the validator's
ContextExceeded                  (TooLarge) `context_exceeded`: the same by our own count, before anybody is asked
BudgetExceeded                   (Busy) `budget_exceeded`, with `retry_after` until there is room again
PriceMissing                     (Misconfigured) a money budget meets a model without a price

The texts are ours: a provider's own message may quote keys or prompts, so it never reaches a client.
"""

from kernel.errors import Busy, ChainError, Invalid, Misconfigured, Refused, TooLarge, Unavailable


class ProviderError(ChainError):
    code = "provider_error"
    default_message = "The model's provider failed."


class ProviderMisconfigured(ProviderError, Misconfigured):
    code = "provider_misconfigured"
    default_message = "The model's provider rejects the server's key or model name; its operator must mend that."


class ProviderRefused(ProviderError, Refused):
    code = "provider_refused"
    default_message = "The model's provider refused this request; a shorter or a different message may pass."


class ProviderContextExceeded(ProviderRefused):
    """`window` and `asked`: the tokens that the provider takes and was sent, where it says so."""

    code = "context_exceeded"
    default_message = "This is too long for the model; shorten the message, or use a model with a larger window."

    def __init__(self, message: str = "", *, window: int | None = None, asked: int | None = None) -> None:
        super().__init__(message)
        self.window, self.asked = window, asked


class ProviderRateLimited(ProviderError, Unavailable):
    code = "provider_rate_limited"
    default_message = "The model's provider has too many requests from us; try again shortly."


class ProviderUnavailable(ProviderError, Unavailable):
    code = "provider_unavailable"
    default_message = "The model's provider can't be reached or failed; try again shortly."


class ProviderTimeout(ProviderError, Unavailable):
    code = "provider_timeout"
    default_message = "The model's provider was silent for too long; try again shortly."


class ProviderTruncated(ProviderError, Unavailable):
    code = "provider_truncated"
    default_message = "The model's provider broke its answer off; what came of it is kept."


class ProviderBadResponse(ProviderError, Unavailable):
    code = "provider_bad_response"
    default_message = "The model's provider sent something that is no answer; try again shortly."


class WorkflowInvalid(Invalid):
    code = "workflow_invalid"
    default_message = "The workflow is not valid."


class PromptInvalid(Invalid):
    code = "prompt_invalid"
    default_message = "The prompt is not valid."


class WorkflowTimeout(Unavailable):
    code = "workflow_timeout"
    default_message = "The workflow took longer than it may; what came of it is kept."


class OutputInvalid(Unavailable):
    code = "output_invalid"
    default_message = "The answer does not have the form that the workflow asks for; try again."


class ToolFailed(Unavailable):
    code = "tool_failed"
    default_message = "A tool that the workflow calls failed; try again shortly."


class QuestionRefused(Refused):
    code = "question_refused"
    default_message = "This message can't be answered here."


class AnswerRefused(Refused):
    code = "answer_refused"
    default_message = "The answer was held back by a rule of this workspace."


class ContextExceeded(TooLarge):
    """`tokens`: what can't be left out; `limit`: what a prompt of this model may have."""

    code = "context_exceeded"
    default_message = ProviderContextExceeded.default_message

    def __init__(self, message: str = "", *, tokens: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.tokens, self.limit = tokens, limit


class BudgetExceeded(Busy):
    code = "budget_exceeded"
    default_message = "A budget of this workspace is used up."


class PriceMissing(Misconfigured):
    code = "price_missing"
    default_message = "A money budget can't be kept for a model without a price; the operator must set one."
