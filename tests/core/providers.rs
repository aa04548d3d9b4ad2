//! Sessions that bring resources with them: whose the names are, and what becomes of what they bring
//! when they go and come back.

use crate::script::run;

const LAB: &str = "
    phone p1 os=android
    board b1";

#[test]
fn what_a_session_brings_is_leased_until_it_goes_and_when_it_is_back() {
    run(
        LAB,
        "
        0s  rig open
            rig provide rack: phone v1 os=ios; phone v2 os=ios   -> add v1, add v2
            s1 open
            s1 acquire 1 phone,os=ios                            -> granted v1
        9s  rig expire                                           -> done
            => v1 offline: provider rack was not heard of for 30s
            => v2 offline: provider rack was not heard of for 30s
            => rig expired
            s2 open
            s2 acquire 1 phone,os=ios
        ..      -> queued blocked: need phone waits for resources that are out of use:
        .. v1 is offline (provider rack was not heard of for 30s),
        .. v2 is offline (provider rack was not heard of for 30s)
            s2 acquire 2 phone,os=ios | fail-fast
        ..      -> refused unavailable_resources: need phone waits for resources that are out of use:
        .. v1 is offline (provider rack was not heard of for 30s),
        .. v2 is offline (provider rack was not heard of for 30s):
        .. it would wait, and --fail-fast says not to
            # A held one stays with its holder, and is nobody's once it is given back.
            lab holders v1                                       -> s1/1
            s1 release 1                                         -> released by s1
        20s rig open
            rig provide rack: phone v1 os=ios; phone v2 os=ios   ->
            => v1 online
            => v2 online
            => s2 1 unblocked
            => s2 1 granted v1
            ",
    );
}

#[test]
fn a_session_that_closes_or_is_ended_takes_along_what_it_brought() {
    run(
        LAB,
        "
        0s  rig open
            rig provide rack: phone v1                 -> add v1
            rig close                                  -> done
            => v1 offline: provider rack has left
            rig open
            rig provide rack: phone v1                 ->
            => v1 online
            admin kick rig                             -> done
            => v1 offline: the session of provider rack was ended by root
            => rig kicked by root
            # `all` counts what is there.
            s1 open
            s1 acquire 1 all:phone                     -> granted p1
            ",
    );
}

#[test]
fn what_kept_back_is_given_up_when_a_part_of_it_goes() {
    run(
        "phone p1*2",
        "
        0s  rig open
            rig provide rack: phone v1*4               -> add v1
            s1 open
            s1 acquire 1 name=phone/3                  -> granted v1*3
            s2 open
            s2 acquire 1 name=phone/4                  -> queued pins v1
            rig expire                                 -> done
            => v1 offline: provider rack was not heard of for 30s
            => rig expired
            => s2 1 blocked: what is in use cannot satisfy all needs together; out of use:
        .. v1 is offline (provider rack was not heard of for 30s)
            => s2 1 unpins
            s1 release 1                               -> released by s1
            rig open
            rig provide rack: phone v1*4               ->
            => v1 online
            => s2 1 unblocked
            => s2 1 granted v1*4
            ",
    );
}

#[test]
fn a_name_is_that_of_whoever_lives_and_of_its_successor() {
    run(
        LAB,
        "
        0s  one open
            one provide rack key=k: phone v1           -> add v1
            two open
            two provide rack key=other: phone v2
        ..      -> refused provider_taken: provider rack is there already, at one (session s1), and you are at two:
        .. stop that one, wait until its ttl is over, or provide under another name (--name)
            # Its half-open predecessor, by its own key: nothing was offline in between.
            two provide rack key=k: phone v1           ->
            => two follows one
            one expire                                 -> done
            => one expired
            # The first is back, as far as it knows, and the second is its predecessor now.
            one open
            one provide rack key=k: phone v1           ->
            => one follows two
            one provide bench key=k: phone v3
        ..      -> refused invalid_params: the session provides as rack already: use another session to provide as bench
            one close                                  -> done
            => v1 offline: provider rack has left
            # Nobody lives under the name: it is anybody's.
            two provide rack key=other: phone v1       ->
            => v1 online
            ",
    );
}

#[test]
fn each_origin_keeps_its_names_and_the_lab_its_policies() {
    run(
        LAB,
        "
        0s  rig open
            rig provide rack: phone p1
        ..      -> refused name_taken: the name \"p1\" is taken by a resource that the inventory file declared:
        .. change it in the file, or choose another name
            rig provide rack: phone v1; rack r1        -> add v1, add r1, add rack
            lab apply : phone v1
        ..      -> refused name_taken: the name \"v1\" is taken by a resource that provider rack declared:
        .. change it in that provider's file, or choose another name
            lab set phone v1
        ..      -> refused name_taken: the name \"v1\" is taken by a resource that provider rack declared:
        .. change it in that provider's file, or choose another name
            lab rm v1
        ..      -> refused name_taken: resource \"v1\" is provided by rack, which is there:
        .. remove it from the provider's file
            rig provide rack yes: pool phone max_per_owner=1; phone v1
        ..      -> refused invalid_inventory: a provider cannot give pool \"phone\" a policy:
        .. that belongs to the lab, in the broker's inventory file
            # What only it named goes with the last of it; what nobody brings any more an admin removes.
            rig provide rack yes: pool phone; phone v1 -> remove r1, remove rack
            rig expire                                 -> done
            => v1 offline: provider rack was not heard of for 30s
            => rig expired
            lab rm v1                                  -> remove v1
            lab set phone v1                           -> add v1
            lab resources                              -> b1 p1 v1
            ",
    );
}

#[test]
fn a_changed_file_takes_effect_as_an_applied_one() {
    run(
        LAB,
        "
        0s  rig open
            rig provide rack: phone v1; phone v2; phone v3         -> add v1, add v2, add v3
            s1 open
            s1 acquire 1 phone,name=v1                             -> granted v1
            rig provide rack: phone v1 os=ios; phone v2; phone w3 was v3  -> change v1 pending, rename w3
            rig provide rack: phone v2
        ..      -> refused needs_confirmation: this would remove 2 of the 3 resources that came from provider rack,
        .. more than a fifth, so nothing was changed: if that is meant, `leasehold provide FILE --yes`
            rig provide rack yes: phone v2                         -> remove v1 pending, remove w3
            s1 release 1                                           -> released by s1
            => v1 removed
            lab resources                                          -> b1 p1 v2
            ",
    );
}

#[test]
fn a_broker_that_starts_again_gives_providers_their_ttl() {
    run(
        LAB,
        "
        0s  rig open
            rig provide rack: phone v1; phone v2 -> add v1, add v2
            s1 open
            lab restart                          -> done
            # Nothing was heard of it yet, and nothing shows as offline: presence gives it a whole ttl.
            s1 up                                -> done
            s1 acquire 1 2:phone,name!=p1        -> granted v1 v2
            rig expire                           -> done
            => v1 offline: provider rack was not heard of for 30s
            => v2 offline: provider rack was not heard of for 30s
            => rig expired
            # What is offline and goes is not remembered to be so.
            lab restart                          -> done
            rig open
            rig provide rack yes: phone v2       -> remove v1 pending
            => v1 online
            => v2 online
            ",
    );
}
