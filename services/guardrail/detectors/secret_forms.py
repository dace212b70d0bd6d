"""Forms of credentials that detect-secrets does not know, in RE2's syntax. Pure; used by `secret.py`.

Each is a vendor's published prefix and length, so that a match is a credential and nothing else.
"""

from collections.abc import Mapping

_END = r"(?:[^A-Za-z0-9_\-]|$)"

FORMS: Mapping[str, tuple[str, ...]] = {
    "secret.anthropic_key": (r"\b(sk-ant-(?:api|admin|sid|oat)\d{2}-[A-Za-z0-9_\-]{40,200})" + _END,),
    "secret.openai_key": (
        r"\b(sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_\-]{40,300})" + _END,
        r"\b(sk-[A-Za-z0-9]{48})" + _END,
    ),
    "secret.openrouter_key": (r"\b(sk-or-v1-[0-9a-f]{64})\b",),
    "secret.google_api_key": (r"\b(AIza[0-9A-Za-z_\-]{35})" + _END,),
    "secret.google_oauth": (
        r"\b(GOCSPX-[A-Za-z0-9_\-]{28})" + _END,
        r"\b(ya29\.[A-Za-z0-9_\-]{60,400})" + _END,
    ),
    "secret.huggingface_token": (r"\b(hf_[A-Za-z]{34})\b", r"\b(api_org_[A-Za-z]{34})\b"),
    "secret.github_token": (r"\b(github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})\b",),
    "secret.gitlab_token": (
        r"\b((?:glpat|gldt|glrt|glcbt|glptt|glft|glsoat)-[A-Za-z0-9_\-]{20,64}(?:\.[0-9a-z]{2}\.[0-9a-z]{9})?)" + _END,
    ),
    "secret.azure_sas": (r"[?&](?:sv|se|sp|sr|st|spr)=[^\s\"'<>]{8,400}&(sig=[A-Za-z0-9%+/=]{40,100})",),
    "secret.azure_ad_secret": (
        r"(?:[^A-Za-z0-9_~.\-]|^)([A-Za-z0-9_~.]{3}\dQ~[A-Za-z0-9_~.\-]{31,34})(?:[^A-Za-z0-9_~.\-]|$)",
    ),
    "secret.digitalocean_token": (r"\b(do[opr]_v1_[0-9a-f]{64})\b",),
    "secret.slack_webhook": (
        r"(https://hooks\.slack\.com/(?:services|workflows|triggers)/[A-Z0-9]{8,14}/[A-Z0-9]{8,14}/[A-Za-z0-9]{16,64})",
    ),
    "secret.discord_webhook": (
        r"(https://(?:ptb\.|canary\.)?discord(?:app)?\.com/api/webhooks/\d{17,20}/[A-Za-z0-9_\-]{60,80})",
    ),
    "secret.teams_webhook": (
        r"(https://[a-z0-9\-]+\.webhook\.office\.com/webhookb2/[0-9a-f\-]{36}@[0-9a-f\-]{36}/[^\s\"'<>]{40,120})",
    ),
    "secret.age_key": (r"\b(AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58})\b",),
    "secret.binnacle_key": (r"\b(bk_[A-Za-z0-9_\-]{43})" + _END,),
    "secret.aws": (r"\b((?:ASIA|ABIA|ACCA)[A-Z2-7]{16})\b",),
    "secret.shopify_token": (r"\b(shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32})\b",),
    "secret.databricks_token": (r"\b(dapi[0-9a-f]{32}(?:-\d)?)\b",),
    "secret.docker_token": (r"\b(dckr_(?:pat|oat)_[A-Za-z0-9_\-]{27,32})" + _END,),
    "secret.grafana_token": (r"\b(gl(?:sa|c)_[A-Za-z0-9]{32}_[0-9a-f]{8})\b",),
    "secret.hashicorp_token": (
        r"\b(hv[sbr]\.[A-Za-z0-9_\-]{24,140})" + _END,
        r"\b([A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_\-=]{60,70})",
    ),
    "secret.linear_key": (r"\b(lin_(?:api|oauth)_[A-Za-z0-9]{40,64})\b",),
    "secret.new_relic_key": (r"\b(NRAK-[A-Z0-9]{27})\b",),
    "secret.notion_token": (r"\b(ntn_[A-Za-z0-9]{40,50})\b", r"\b(secret_[A-Za-z0-9]{43})\b"),
    "secret.npm_token": (r"\b(npm_[A-Za-z0-9]{36})\b",),
    "secret.perplexity_key": (r"\b(pplx-[A-Za-z0-9]{40,64})\b",),
    "secret.groq_key": (r"\b(gsk_[A-Za-z0-9]{48,56})\b",),
    "secret.xai_key": (r"\b(xai-[A-Za-z0-9]{70,90})\b",),
    "secret.replicate_token": (r"\b(r8_[A-Za-z0-9]{37})\b",),
    "secret.postman_key": (r"\b(PMAK-[0-9a-f]{24}-[0-9a-f]{34})\b",),
    "secret.stripe_webhook": (r"\b(whsec_[A-Za-z0-9+/=]{32,64})",),
    "secret.twilio_key": (r"\b(SK[0-9a-f]{32})\b",),
    "secret.tailscale_key": (r"\b(tskey-(?:auth|api|client)-[A-Za-z0-9]{10,20}-[A-Za-z0-9]{20,40})\b",),
}
"""By rule: expressions whose first group is the credential."""
