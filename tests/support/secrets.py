"""Secrets to plant: by name, the text that is planted and the part of it that must be found nowhere."""

_A = "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3zA5"

#: Split, so that scanners of this repository find none.
SECRETS: dict[str, tuple[str, str]] = {
    name: (planted, planted if secret is None else secret)
    for name, planted, secret in (
        ("openai", "sk" + f"-{_A}", None),
        ("openai_project", "sk" + f"-proj-{_A}", None),
        ("openai_service", "sk" + f"-svcacct-{_A}", None),
        ("anthropic", "sk" + f"-ant-api03-{_A}", None),
        ("openrouter", "sk" + f"-or-v1-{_A}", None),
        ("google", "AI" + f"za{_A[:35]}", None),
        ("google_oauth", "ya" + f"29.{_A}", None),
        ("google_client", "GOC" + f"SPX-{_A[:28]}", None),
        ("aws_id", "AK" + "IAIOSFODNN7EXAMPLE", None),
        ("aws_session_id", "AS" + "IAIOSFODNN7EXAMPLE", None),
        ("aws_secret", "aws_secret_access_key=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrXUtnFEMI"),
        ("github", "gh" + f"p_{_A}", None),
        ("github_server", "gh" + f"s_{_A}", None),
        ("github_fine", "github" + f"_pat_{_A}", None),
        ("gitlab", "gl" + f"pat-{_A[:20]}", None),
        ("slack_bot", "xo" + "xb-123456789012-abcDEF123456", None),
        ("slack_user", "xo" + "xp-123456789012-abcDEF123456", None),
        ("stripe", "sk" + f"_live_{_A[:24]}", None),
        ("stripe_restricted", "rk" + f"_test_{_A[:24]}", None),
        ("stripe_hook", "wh" + f"sec_{_A}", None),
        ("huggingface", "hf" + f"_{_A[:34]}", None),
        ("sendgrid", "SG" + f".{_A[:22]}.{_A}", None),
        ("twilio", "SK" + "0123456789abcdef0123456789abcdef", None),
        ("npm", "np" + f"m_{_A}", None),
        ("groq", "gs" + f"k_{_A}", None),
        ("jwt", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.c2lnbmF0dXJlLXg", None),
        ("pem", "-----BEGIN " + "PRIVATE KEY-----\\nMIIEvQIBADAN\\n-----END PRIVATE KEY-----", "MIIEvQIBADAN"),
        ("bearer", "Bearer Zx81kq7TTs0aQ", "Zx81kq7TTs0aQ"),
        ("basic", "Basic ZHVtbXk6cGFzc3dvcnQx", "ZHVtbXk6cGFzc3dvcnQx"),
        ("header", "Authorization: Token swordfishes", "swordfishes"),
        ("database_url", "postgres://app:tr0ub4dor@db.internal:5432/app", "tr0ub4dor"),
        ("redis_url", "redis://:tr0ub4dor3@cache:6379/0", "tr0ub4dor3"),
        ("assignment", "api_key=Zq4vT8nB", "Zq4vT8nB"),
        ("password_word", "password: hunter2x", "hunter2x"),
        ("client_secret", "client_secret=Qm5yT8wZ", "Qm5yT8wZ"),
        ("visa", "4111 1111 1111 1111", None),
        ("visa_plain", "4012888888881881", None),
        ("amex", "378282246310005", None),
        ("mastercard", "5555-5555-5555-4444", None),
        ("email", "mara.o-neil+test@mail.example.co.uk", None),
        ("phone", "+49 30 1234567", None),
        ("phone_us", "(202) 555-0143", None),
        ("iban", "DE89 3704 0044 0532 0130 00", None),
        ("iban_plain", "GB82WEST12345698765432", None),
    )
}
