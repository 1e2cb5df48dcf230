//! One suite for two servers: the embedded one, and Xen's own xenstored from Debian, run on this machine without
//! Xen by tests/fakexen. What passes on both is what the client and the embedded server may rely on.
//!
//! Every check is a function of a [`Subject`], a server of its own with small quotas, and is run as
//! `embedded::…` and `xenstored::…`. Where xenstored or a C compiler is missing the latter count as skipped.

mod differential;
mod domains;
mod ears;
mod limits;
mod listings;
mod loss;
mod permissions;
mod ring;
mod sharing;
mod subject;
#[path = "../support/mod.rs"]
mod support;
mod transactions;
mod values;
mod watches;

use subject::{Server, Subject};

fn run(server: Server, name: &str, check: fn(&mut Subject)) {
    match Subject::start(server) {
        Ok(mut subject) => check(&mut subject),
        Err(reason) => support::skipped(&format!("conformance xenstored::{name}"), &reason),
    }
}

macro_rules! suite {
    ($($module:ident: $($check:ident)*;)*) => {
        mod embedded { $(mod $module { $(
            #[test]
            fn $check() {
                let name = concat!(stringify!($module), "::", stringify!($check));
                crate::run(crate::Server::Embedded, name, crate::$module::$check);
            }
        )* })* }
        mod xenstored { $(mod $module { $(
            #[test]
            fn $check() {
                let name = concat!(stringify!($module), "::", stringify!($check));
                crate::run(crate::Server::Xenstored, name, crate::$module::$check);
            }
        )* })* }
    };
}

suite! {
    values:
        value_when_written_then_is_read_back
        value_when_overwritten_then_children_stay
        parents_when_missing_then_are_created_empty
        node_when_made_again_then_keeps_its_value
        subtree_when_removed_then_is_gone
        missing_node_when_removed_then_depends_on_its_parent
        missing_node_when_asked_for_then_is_not_found
        root_when_removed_then_is_refused;
    listings:
        children_when_listed_then_come_in_order_of_creation
        list_when_at_the_message_limit_then_is_whole
        list_when_longer_than_a_message_then_is_whole
        list_when_longer_than_a_message_in_a_transaction_then_is_whole
        long_list_when_it_changes_meanwhile_then_is_one_of_its_states
        part_when_the_list_changed_then_has_another_generation;
    permissions:
        permissions_when_set_then_are_read_back
        node_when_created_then_inherits_from_its_parent
        node_when_created_by_a_domain_then_is_its_own
        domain_when_it_has_an_entry_then_may_do_what_that_says
        domain_when_it_has_no_entry_then_may_do_what_the_first_says
        missing_node_when_the_parent_is_closed_then_is_denied
        owner_when_changed_by_a_domain_then_is_refused
        permissions_when_set_by_a_stranger_then_are_denied
        permissions_when_malformed_then_are_refused;
    domains:
        domain_when_introduced_then_is_said_to_be
        domain_when_it_comes_and_goes_then_special_watches_fire
        domain_when_released_then_its_nodes_go
        domain_when_it_asks_for_privileged_things_then_is_denied
        path_when_relative_then_is_at_the_domains_home
        special_watch_when_not_permitted_then_does_not_fire
        home_when_asked_for_then_is_below_local_domain;
    watches:
        watch_when_registered_then_fires_once
        change_when_below_the_watch_then_fires_with_its_path
        change_when_elsewhere_then_does_not_fire
        creation_when_deep_then_fires_for_the_node_alone
        ancestor_when_removed_then_the_watch_fires_with_its_own_path
        removal_when_watched_from_above_then_fires_once
        permissions_when_set_then_fire
        node_when_made_again_then_does_not_fire
        changes_when_many_then_fire_in_order
        watch_when_registered_twice_then_exists
        watch_when_tokens_differ_then_each_fires
        watch_when_dropped_then_is_silent
        events_when_not_fetched_then_hold_up_nothing_and_are_all_there
        event_when_equal_to_a_queued_one_then_is_merged_if_asked
        answer_when_a_watch_is_registered_then_comes_before_its_event
        watches_when_reset_then_are_gone
        domain_when_it_may_not_read_then_hears_nothing
        domain_when_its_readable_node_goes_then_hears_of_it;
    transactions:
        changes_when_uncommitted_then_are_seen_inside_alone
        changes_when_aborted_then_are_gone
        body_when_it_fails_then_nothing_happens
        node_when_read_and_changed_outside_then_conflicts
        node_when_missing_and_created_outside_then_conflicts
        children_when_added_by_two_then_conflict
        node_when_only_read_then_commits_beside_other_changes
        conflict_when_it_happens_then_everything_is_tried_again
        conflict_when_it_never_ends_then_is_reported
        counter_when_many_count_then_loses_nothing
        events_when_in_a_transaction_then_come_with_the_commit
        transaction_when_unknown_then_is_not_found
        transaction_when_inside_another_then_is_busy
        subtree_when_removed_inside_then_goes_with_the_commit;
    limits:
        path_when_bad_then_never_reaches_the_server
        path_when_bad_on_the_wire_then_is_refused
        path_when_too_long_then_is_refused
        payload_when_at_the_limit_then_fits_and_beyond_does_not
        payload_when_malformed_then_is_refused
        request_when_unknown_then_is_unsupported
        message_when_oversized_then_ends_the_connection
        domain_when_it_owns_too_many_nodes_then_is_stopped
        domain_when_its_node_grows_too_large_then_is_stopped
        domain_when_it_watches_too_much_then_is_stopped
        domain_when_it_opens_too_many_transactions_then_is_stopped
        domain_when_it_sets_too_many_permissions_then_is_stopped
        dom0_when_beyond_a_domains_quotas_then_goes_on;
    loss:
        server_when_restarted_then_watches_fire_again
        server_when_restarted_then_reads_go_through
        server_when_gone_then_requests_fail
        transaction_when_the_server_is_lost_then_fails
        watch_when_registered_without_a_server_then_comes_with_it
        watch_when_dropped_without_a_server_then_stays_away;
    sharing:
        client_when_shared_by_threads_then_each_gets_its_answer
        requests_when_pipelined_then_are_answered_in_order
        client_when_dropped_then_its_watches_and_transactions_end;
}
