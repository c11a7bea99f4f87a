"""A drawn world of three boxes, and statements about it that are true or false (after NLVR, ACL 2017)."""
