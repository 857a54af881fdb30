//! Push rules.

use hearth_core::Result;
use ruma::api::client::push::{
    delete_pushrule, get_pushrule, get_pushrule_actions, get_pushrule_enabled, get_pushrules_all,
    get_pushrules_global_scope, set_pushrule, set_pushrule_actions, set_pushrule_enabled,
};

use crate::api::{Api, Client, Routes};

pub(super) fn routes(r: Routes) -> Routes {
    r.client(all)
        .client(global)
        .client(get)
        .client(put)
        .client(delete)
        .client(enabled)
        .client(set_enabled)
        .client(actions)
        .client(set_actions)
}

async fn all(api: Api, req: Client<get_pushrules_all::v3::Request>) -> Result<get_pushrules_all::v3::Response> {
    Ok(get_pushrules_all::v3::Response::new(api.push_rules.rules(&req.auth.user_id).await?))
}

async fn global(
    api: Api,
    req: Client<get_pushrules_global_scope::v3::Request>,
) -> Result<get_pushrules_global_scope::v3::Response> {
    Ok(get_pushrules_global_scope::v3::Response::new(api.push_rules.rules(&req.auth.user_id).await?))
}

async fn get(api: Api, req: Client<get_pushrule::v3::Request>) -> Result<get_pushrule::v3::Response> {
    let rule = api.push_rules.rule(&req.auth.user_id, req.body.kind, &req.body.rule_id).await?;
    Ok(get_pushrule::v3::Response::new(rule.into()))
}

async fn put(api: Api, req: Client<set_pushrule::v3::Request>) -> Result<set_pushrule::v3::Response> {
    let set_pushrule::v3::Request { rule, before, after, .. } = req.body;
    api.push_rules.put(&req.auth.user_id, rule, after.as_deref(), before.as_deref()).await?;
    Ok(set_pushrule::v3::Response::new())
}

async fn delete(api: Api, req: Client<delete_pushrule::v3::Request>) -> Result<delete_pushrule::v3::Response> {
    api.push_rules.remove(&req.auth.user_id, &req.body.kind, &req.body.rule_id).await?;
    Ok(delete_pushrule::v3::Response::new())
}

async fn enabled(
    api: Api,
    req: Client<get_pushrule_enabled::v3::Request>,
) -> Result<get_pushrule_enabled::v3::Response> {
    let rule = api.push_rules.rule(&req.auth.user_id, req.body.kind, &req.body.rule_id).await?;
    Ok(get_pushrule_enabled::v3::Response::new(rule.as_ref().enabled()))
}

async fn set_enabled(
    api: Api,
    req: Client<set_pushrule_enabled::v3::Request>,
) -> Result<set_pushrule_enabled::v3::Response> {
    let set_pushrule_enabled::v3::Request { kind, rule_id, enabled, .. } = req.body;
    api.push_rules.set_enabled(&req.auth.user_id, &kind, &rule_id, enabled).await?;
    Ok(set_pushrule_enabled::v3::Response::new())
}

async fn actions(
    api: Api,
    req: Client<get_pushrule_actions::v3::Request>,
) -> Result<get_pushrule_actions::v3::Response> {
    let rule = api.push_rules.rule(&req.auth.user_id, req.body.kind, &req.body.rule_id).await?;
    Ok(get_pushrule_actions::v3::Response::new(rule.as_ref().actions().to_vec()))
}

async fn set_actions(
    api: Api,
    req: Client<set_pushrule_actions::v3::Request>,
) -> Result<set_pushrule_actions::v3::Response> {
    let set_pushrule_actions::v3::Request { kind, rule_id, actions, .. } = req.body;
    api.push_rules.set_actions(&req.auth.user_id, &kind, &rule_id, actions).await?;
    Ok(set_pushrule_actions::v3::Response::new())
}
